"""Assignment of conditioners to slots, and checks that they fit, before any weights are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.signals import SignalKind, Slot
from ldmkit.errors import CompositionError
from ldmkit.models.spec import ConditionerSpec


def input_name(name: str, spec: ConditionerSpec) -> str:
    """Key of the caller's mapping that feeds a conditioner."""
    return spec.input or name


def input_owners(
    conditioners: Mapping[str, Conditioner], wiring: Mapping[str, ConditionerSpec]
) -> dict[str, Conditioner]:
    """Input name -> the conditioner that reads it; where several do, the first in spec order."""
    owners: dict[str, Conditioner] = {}
    for name, spec in wiring.items():
        owners.setdefault(input_name(name, spec), conditioners[name])
    return owners


def route(name: str, kind: SignalKind, asked: str | None, slots: Mapping[str, Slot]) -> str:
    """The slot that a conditioner fills: the requested one, or else the only one of its kind.

    The denoiser's own slots come before those of adapters, `<adapter>.<slot>`: attaching an adapter changes no route.

    Raises:
        CompositionError: no such slot, a slot of another kind, or not exactly one slot of the kind.
    """
    offered = ", ".join(f"{s} ({slot.kind}, dim {slot.dim})" for s, slot in slots.items()) or "none"
    if asked is not None:
        if asked not in slots:
            raise CompositionError(
                "unknown-slot", f"conditioner {name!r} requests unknown slot {asked!r}", fits=f"slots: {offered}"
            )
        if slots[asked].kind != kind:
            what = f"conditioner {name!r} emits {kind}, but slot {asked!r} takes {slots[asked].kind}"
            raise CompositionError("kind-mismatch", what, fits=f"slots: {offered}")
        return asked
    every = [slot for slot, declared in slots.items() if declared.kind == kind]
    fitting = [slot for slot in every if "." not in slot] or every
    if len(fitting) == 1:
        return fitting[0]
    problem = "there is no slot for it" if not fitting else f"several slots take that, so name one of {fitting}"
    raise CompositionError(
        "no-slot" if not fitting else "ambiguous-slot",
        f"conditioner {name!r} emits {kind}; {problem}",
        fits=f"slots: {offered}",
    )


def check_dims(parts: Sequence[tuple[str, str, int]], slots: Mapping[str, Slot]) -> None:
    """Check (conditioner, slot, dim) against the slots' declarations and join rules.

    Raises:
        CompositionError: a dim does not fit (names conditioner, slot and both dims), or a required slot is empty.
    """
    filled: dict[str, list[tuple[str, int]]] = {}
    for name, slot, dim in parts:
        filled.setdefault(slot, []).append((name, dim))
    for slot, declared in slots.items():
        users = filled.get(slot, [])
        names = " + ".join(f"{name!r} (dim {dim})" for name, dim in users)
        if not users:
            if declared.required:
                what = f"nothing fills the required slot {slot!r} ({declared.kind}, dim {declared.dim})"
                raise CompositionError("empty-slot", what, fits=f"a conditioner that emits {declared.kind}")
            continue
        if declared.join == "only" and len(users) > 1:
            raise CompositionError("crowded-slot", f"slot {slot!r} takes one conditioner, got {names}")
        if declared.join == "feature":
            if sum(dim for _, dim in users) != declared.dim:
                raise CompositionError("dim-mismatch", f"{names} do not add up to dim {declared.dim} of slot {slot!r}")
            continue
        for name, dim in users:
            if dim != declared.dim:
                what = f"conditioner {name!r} has dim {dim}, but slot {slot!r} takes dim {declared.dim}"
                raise CompositionError(
                    "dim-mismatch", what, fits=f"a {declared.kind} conditioner of dim {declared.dim}"
                )
