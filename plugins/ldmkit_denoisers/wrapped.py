"""What denoisers that hold another denoiser share: their context, and the inner one's within it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ldmkit import CompositionError, Context, Denoiser, PartSpec, get


@dataclass
class WrappedContext(Context):
    """The context of a denoiser around another. Adapters put their states here, not into the inner context."""

    inner: Context | None = None


def inner_denoiser(spec: PartSpec, pieces: str, inner: Denoiser | None = None) -> Denoiser:
    """The denoiser of a spec, or the given one, for a denoiser that takes pictures apart.

    Args:
        pieces: what they are taken apart into, for the error.

    Raises:
        CompositionError: `rank-mismatch`: its latents are no pictures.
    """
    made: Denoiser = get("denoiser", spec.type)(spec.config) if inner is None else inner
    if made.latent_axes != 2:
        what = f"{type(made).__name__} takes latents of {made.latent_axes} axes, and {pieces} have two"
        raise CompositionError("rank-mismatch", what, fits="a denoiser of pictures")
    return made


def outer_fields(context: Context) -> dict[str, Any]:
    """What a run sets in the outer context, as the inner one has to have it: adapters, conditions present, memory."""
    fields: dict[str, Any] = {"adapters": context.adapters, "present": context.present, "run": context.run}
    return fields | {"memory": context.memory, "given": context.given, "time": context.time}


def inner_context(context: WrappedContext) -> Context:
    """The inner context with the signals that it was prepared with, and the outer one's adapters."""
    assert context.inner is not None
    return replace(context.inner, **outer_fields(context))
