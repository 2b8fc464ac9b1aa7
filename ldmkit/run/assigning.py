"""Refusing assignment to attributes of pipelines and cascades, with a hint at the call that makes a changed copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit.run.spellings import ATTRIBUTES, no_attribute

INSTEAD: Mapping[str, str] = {
    **{name: f"pipe.with_({name}=...)" for name in ("codec", "denoiser", "process")},
    "conditioners": 'pipe.with_(conditioners={"its name": ...})',
    "wiring": 'pipe.with_(wiring={"its name": ...})',
    "defaults": "pipe.with_(sampler=..., grid=..., guidance=..., steps=..., size=...)",
    "adapters": 'pipe.with_adapter("its name", adapter, conditioners)',
    **dict.fromkeys(("plan", "network"), "pipe.planned(...)"),
    "placement": "pipe.placed(...)",
    "device": "pipe.to(...)",
    "steps": "steps=... of a call, or pipe.with_(steps=...)",
    "stages": "ldmkit.Cascade.of(stages, wiring)",
}
"""Attribute -> the call that makes a pipeline with another value of it."""


class Unassignable:
    """Mixin for pipelines and cascades: no attribute can be set or deleted once `_made` is set.

    An assignment would take effect only in part: in what a pipeline draws, say, but not in what it saves.

    Raises:
        AttributeError: on setting or deleting; the message names the call that makes a changed copy.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        _check_unmade(self, name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        _check_unmade(self, name)
        super().__delattr__(name)


def _check_unmade(owner: object, name: str) -> None:
    if "_made" not in vars(owner):
        return
    kind = type(owner).__name__
    if name in vars(owner) or hasattr(type(owner), name):
        instead = INSTEAD.get(name)
        what = f"{name!r} of a {kind} cannot be changed"
        raise AttributeError(what + (f"; to make a changed copy: {instead}" if instead else ""))
    ours = INSTEAD.get(ATTRIBUTES.get(name, "").removeprefix("pipe."))
    if ours is None:
        raise no_attribute(kind, name)
    raise AttributeError(f"a {kind} has no attribute {name!r}; to make a changed copy: {ours}")
