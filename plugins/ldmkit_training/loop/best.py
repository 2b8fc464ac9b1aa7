"""Keeps the model with the best validation so far, beside the one saved at the end."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from ldmkit import SpecError, Value, suggest

BEST, NOTE = "best", "best.json"
"""Its folder in the run folder, and the file that records its step and figure."""


class BestSection(Value):
    """Which validation figure decides.

    Args:
        figure: its name, as in the log after `validation/`.
        highest: whether the highest value is the best (a similarity) or the lowest (a loss).
    """

    figure: str = Field(default="loss", min_length=1)
    highest: bool = False


def best_before(state: Mapping[str, Any] | None, section: BestSection, out: Path) -> dict[str, Any] | None:
    """The value that a resumed run has to beat: the best of its checkpoint, if the figure is the same and its model
    still exists."""
    note = None if state is None else state.get("best")
    if not note or note.get("figure") != section.figure or not (out / BEST).is_dir():
        return None
    return {"step": note["step"], "value": note["value"]}


class Best:
    """The best figure so far.

    Args:
        found: `{step, value}` of the checkpoint that the run resumes from; None: none.
    """

    def __init__(self, section: BestSection, found: Mapping[str, Any] | None = None) -> None:
        self.section = section
        self.step = int(found["step"]) if found else 0
        self.value = float(found["value"]) if found else math.nan

    def check(self, figures: Collection[str]) -> None:
        """Check that validation reports the figure.

        Raises:
            SpecError: `no-figure`.
        """
        if self.section.figure not in figures:
            what = f"validation has no figure {self.section.figure!r}"
            fits = suggest(self.section.figure, figures)
            raise SpecError("no-figure", what, where="checkpoints.best.figure", fits=fits)

    def improves(self, figures: Mapping[str, float], step: int) -> bool:
        """Whether a validation is better than all before, in which case it becomes the new best. NaN never is."""
        value = float(figures.get(self.section.figure, math.nan))
        better = value > self.value if self.section.highest else value < self.value
        if math.isnan(value) or not (better or math.isnan(self.value)):
            return False
        self.step, self.value = step, value
        return True

    @property
    def note(self) -> dict[str, Any] | None:
        """`{step, value, figure}`; None before the first."""
        if math.isnan(self.value):
            return None
        return {"step": self.step, "value": self.value, "figure": self.section.figure}
