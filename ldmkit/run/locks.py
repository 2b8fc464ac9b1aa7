"""Warnings about settings for which a distilled model was not distilled, and about samplers for distilled models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit.errors import warn
from ldmkit.models.compose import build_value
from ldmkit.models.spec import Defaults
from ldmkit.run.guards import part_name
from ldmkit.run.request import Choices


def remark_locked(defaults: Defaults, request: Choices, asked: Mapping[str, Any]) -> None:
    """Warn if an argument of the call differs from a default that the model locks.

    Args:
        asked: the call's arguments by name; absent or None if the default is used.
    """
    for name in defaults.locked or ():
        if asked.get(name) is None:
            continue
        own = getattr(defaults, name)
        if getattr(request, name) != (own if name == "steps" else build_value(name, own)):
            locked = own if name == "steps" else f"{own.type} {own.config or ''}".strip()
            warn(f"{name}: the model was distilled for {locked}; other settings may give poor pictures")


def remark_distilled(defaults: Defaults, request: Choices) -> None:
    """Warn about a sampler for distilled networks if the model is not known to be distilled.

    A model counts as distilled if it locks defaults, or if its default sampler is for distilled networks.
    """
    if request.sampler.estimate == "mean" or defaults.locked:
        return
    own = build_value("sampler", defaults.sampler)
    if own.estimate == "mean":
        what = f"{part_name('sampler', request.sampler)} is designed for networks distilled for a few steps"
        warn(f"{what}, but this model is not known to be distilled; other models give flat pictures without detail")
