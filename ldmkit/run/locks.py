"""Distilled models asked for what they were not distilled for, and other models asked for what only those can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit.errors import warn
from ldmkit.models.compose import build_value
from ldmkit.models.spec import Defaults
from ldmkit.run.guards import part_name
from ldmkit.run.request import Choices


def remark_locked(defaults: Defaults, request: Choices, asked: Mapping[str, Any]) -> None:
    """Warn where an argument of the call differs from a default that the model locks.

    Args:
        asked: the call's arguments by name; absent or None where the default is taken.
    """
    for name in defaults.locked or ():
        if asked.get(name) is None:
            continue
        own = getattr(defaults, name)
        if getattr(request, name) != (own if name == "steps" else build_value(name, own)):
            said = own if name == "steps" else f"{own.type} {own.config or ''}".strip()
            warn(f"{name}: the model was distilled for {said}, and may draw poor pictures with anything else")


def remark_distilled(defaults: Defaults, request: Choices) -> None:
    """Warn of a sampler for distilled networks where nothing says that the model is one.

    What says so: locked defaults, or a default sampler that is made for distilled networks too.
    """
    if request.sampler.estimate == "mean" or defaults.locked:
        return
    own = build_value("sampler", defaults.sampler)
    if own.estimate == "mean":
        what = f"{part_name('sampler', request.sampler)} is made for networks distilled for a few steps"
        warn(f"{what}, and nothing says that this model is one: others give flat pictures without detail")
