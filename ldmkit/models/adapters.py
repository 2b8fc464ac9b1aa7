"""Checks that an adapter fits the network to which it is attached."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ldmkit.contracts.adapter import Adapter
from ldmkit.contracts.denoiser import Denoiser
from ldmkit.errors import CompositionError, InputError
from ldmkit.models.spec import ConditionerSpec


def check_adapter(name: str, adapter: Adapter, denoiser: Denoiser) -> None:
    """Refuse an adapter whose declared channels, slots or widths do not fit the denoiser's.

    Raises:
        CompositionError: `other-network`.
    """
    who, whose = f"adapter {name!r} ({type(adapter).__name__})", f"denoiser {type(denoiser).__name__}"
    if adapter.channels not in (None, denoiser.channels):
        raise _other(f"{who} reads latents with {adapter.channels} channels; {whose} has {denoiser.channels}")
    for slot, read in adapter.reads.items():
        own = denoiser.slots.get(slot)
        wanted = f"{who} reads the {read.kind} of slot {slot!r}, dim {read.dim}"
        if own is None:
            raise _other(f"{wanted}; {whose} has no such slot")
        if (own.kind, own.dim) != (read.kind, read.dim):
            raise _other(f"{wanted}; {whose} has {own.kind}, dim {own.dim}")
    for port, width in adapter.adds(name).items():
        theirs = denoiser.ports[port].width if port in denoiser.ports else None
        if theirs not in (None, width):
            raise _other(f"{who} adds {width} channels at port {port!r}; {whose} has {theirs} there")


def check_free(names: Collection[str], adapters: Collection[str], wiring: Mapping[str, ConditionerSpec]) -> None:
    """Refuse names for a new adapter and its conditioners that are already used in the pipeline.

    Raises:
        InputError: `name-taken`.
    """
    inputs = {spec.input or name for name, spec in wiring.items()}
    for name in names:
        owner = "an adapter" if name in adapters else "an input" if name in inputs else "a conditioner"
        if name in (*adapters, *wiring, *inputs):
            fits = "another name; pipe.tuned(name, ...) changes the options of an adapter"
            what = f"{name!r} is already the name of {owner} of this pipeline"
            raise InputError("name-taken", what, where="name", fits=fits)


def _other(what: str) -> CompositionError:
    return CompositionError("other-network", what, fits="an adapter for this network")
