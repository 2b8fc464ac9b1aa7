"""Calls that ask a distilled model for something else than what it was distilled for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit.errors import warn
from ldmkit.models.compose import build_value
from ldmkit.models.spec import Defaults
from ldmkit.run.request import Request


def remark_locked(defaults: Defaults, request: Request, asked: Mapping[str, Any]) -> None:
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
