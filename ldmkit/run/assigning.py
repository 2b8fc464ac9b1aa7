"""Assigning to what is made: refused, with the call that makes another one like it."""

from __future__ import annotations

from collections.abc import Mapping

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
"""Attribute -> the call that makes a pipeline which differs in it."""


def check_unmade(owner: object, name: str) -> None:
    """Refuse to change what a pipeline or cascade is made of once it is made: some of what it does would follow, what
    is saved would not.

    Raises:
        AttributeError: it is made; the message names the call that makes another one.
    """
    if "_made" not in vars(owner):
        return
    kind = type(owner).__name__
    if name in vars(owner) or hasattr(type(owner), name):
        instead = INSTEAD.get(name)
        what = f"{name!r} of a {kind} is fixed once it is made"
        raise AttributeError(what + (f"; for one that differs: {instead}" if instead else ""))
    ours = INSTEAD.get(ATTRIBUTES.get(name, "").removeprefix("pipe."))
    if ours is None:
        raise no_attribute(kind, name)
    raise AttributeError(f"a {kind} has no attribute {name!r}; for one that differs: {ours}")
