"""Examples of a part: small configurations and raw inputs for the contract kit. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Example(NamedTuple):
    """A configuration that builds in milliseconds.

    Args:
        config: the part's config; small widths, few layers.
        inputs: for conditioners, raw inputs of one sample each, at least two different ones; by default the kit
            generates them from the schema of `Input`. For guidance, names of the conditions it is restricted to.
        trained: False if the part has nothing to learn, which disables the gradient checks.
        denoiser: for adapters that fit only one kind of denoiser, its `{"type": ..., "config": ...}`; by default the
            kit uses a small one of its own.
        plane_factor: for adapters, the resolution of the plane they take, relative to the latents' resolution.
        error: for codecs, the maximum absolute reconstruction error; None if it depends on trained weights.
        vary: values of config fields to check as well, by field, for numbers that change the algorithm
            (`{"order": (1, 2, 3)}`). Every value of a literal, boolean or enumeration is checked anyway; a field named
            here is checked with these values only.
    """

    config: Mapping[str, Any] = _NOTHING
    inputs: Sequence[Any] = ()
    trained: bool = True
    denoiser: Mapping[str, Any] | None = None
    plane_factor: int = 1
    error: float | None = None
    vary: Mapping[str, Sequence[Any]] = _NOTHING
