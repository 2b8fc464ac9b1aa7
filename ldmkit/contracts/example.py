"""Examples of a part: small configurations and raw inputs with which the contract kit checks it. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Example(NamedTuple):
    """A configuration that builds in milliseconds.

    Args:
        config: of the part; small widths, few layers.
        inputs: of conditioners: raw inputs that it takes, one sample each, at least two that differ. Where none are
            given, the kit makes them from the schema of `Input`. Of guidance: names of the conditions it is for, where
            it is not for any.
        trained: False where the part has nothing to learn, so that the checks of gradients do not apply.
        denoiser: of adapters: a denoiser's `{"type": ..., "config": ...}`, where they fit one kind only; by default a
            small one of the kit's own.
        plane_factor: of adapters: rows and columns of a plane that they take, for each of the latents'.
        error: of codecs: how far decoded latents may be from their pictures, at most anywhere; None: the weights say.
    """

    config: Mapping[str, Any] = _NOTHING
    inputs: Sequence[Any] = ()
    trained: bool = True
    denoiser: Mapping[str, Any] | None = None
    plane_factor: int = 1
    error: float | None = None
