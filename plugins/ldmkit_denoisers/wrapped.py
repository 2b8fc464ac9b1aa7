"""What denoisers that hold another denoiser share: their context, and the inner one's within it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ldmkit import Context


@dataclass
class WrappedContext(Context):
    """The context of a denoiser around another. Adapters put their states here, not into the inner context."""

    inner: Context | None = None


def outer_fields(context: Context) -> dict[str, Any]:
    """What a run sets in the outer context, as the inner one has to have it: adapters, conditions present, memory."""
    fields: dict[str, Any] = {"adapters": context.adapters, "present": context.present, "run": context.run}
    return fields | {"memory": context.memory, "given": context.given, "time": context.time}


def inner_context(context: WrappedContext) -> Context:
    """The inner context with the signals that it was prepared with, and the outer one's adapters."""
    assert context.inner is not None
    return replace(context.inner, **outer_fields(context))
