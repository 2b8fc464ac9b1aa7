"""The part of a run in which an adapter acts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from ldmkit import CompositionError, Run, SpecError, Value


class Window(Value):
    """The part of the run, in fractions of its steps, in which something acts; for configs to inherit.

    A step is in it if all of it is.
    """

    start: float = Field(0.0, ge=0, le=1)
    end: float = Field(1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start > self.end:
            what = f"it would act from {self.start:g} to {self.end:g} of the run"
            raise SpecError("invalid", what, where="start", fits="start <= end")
        return self

    @property
    def whole(self) -> bool:
        """Whether it is the whole run."""
        return self.start == 0 and self.end == 1

    def holds(self, run: Run, sigma: float) -> bool:
        """Whether the step that begins at a noise level is in it."""
        if self.whole:
            return True
        done = run.progress(sigma)
        after = done + 1 / max(len(run.sigmas) - 1, 1)
        return done >= self.start - 1e-9 and after <= self.end + 1e-9

    def outside(self, run: Run) -> str | None:
        """That no step of a run is in it, for `Adapter.idle`."""
        if any(self.holds(run, sigma) for sigma in run.sigmas[:-1]):
            return None
        window = f"from {self.start:g} to {self.end:g} of the run"
        return f"no step of {len(run.sigmas) - 1} lies in its window, {window}"


def check_tunable(config: Value, changes: Mapping[str, Any], options: Collection[str]) -> None:
    """Refuse changes of what an adapter's network or its ports are made by, for `Adapter.tuned`.

    Args:
        options: fields that may change; unknown ones are the config's to refuse.

    Raises:
        CompositionError: `not-tunable`.
    """
    for key, value in changes.items():
        if key not in options and key in type(config).model_fields and value != getattr(config, key):
            what = f"its weights are those of a network with {key} {getattr(config, key)!r:.80}"
            raise CompositionError("not-tunable", what, where=key, fits=", ".join(options))
