"""Condition dropout: which conditions each row is trained with; the null of a conditioner replaces what is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self, TypeAlias

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ldmkit import CompositionError, Draws, SpecError, Value, suggest

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class ConditionDropout(Value):
    """Each row follows one random rule: keep nothing, keep all, keep a single one, or drop each independently.

    A model that accepts any subset of its conditions must see each of them alone: beside a map that determines
    everything, a caption teaches nothing. Independent rates of 0.5 leave a given one of four alone in 1 row of 16 only.

    Args:
        rates: input name -> probability of dropping it, independently of the others, if no other rule applies.
        none: share of rows without any condition (unconditional, for guidance).
        all: share of rows with all of them.
        alone: input name -> share of rows that keep it and nothing else.
    """

    rates: dict[str, Share] = Field(default_factory=dict)
    none: Share = 0.0
    all: Share = 0.0
    alone: dict[str, Share] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _shares(self) -> Self:
        total = self.none + self.all + sum(self.alone.values())
        if total > 1 + 1e-9:
            what = f"none, all and alone add up to {total:.4g}"
            raise SpecError("shares", what, where="dropout", fits="at most 1")
        return self

    def check(self, names: Sequence[str]) -> None:
        """Check that the conditions it names exist and may be dropped.

        Raises:
            CompositionError: `unknown-condition`.
        """
        for key, shares in (("rates", self.rates), ("alone", self.alone)):
            for name in shares:
                if name not in names:
                    what = f"there is no condition {name!r} that may be dropped"
                    raise CompositionError(
                        "unknown-condition", what, where=f"objective.dropout.{key}", fits=suggest(name, names)
                    )

    def kept(self, names: Sequence[str], draws: Draws) -> dict[str, Tensor]:
        """Input name -> (B,) bool, True where the row keeps it."""
        rule = draws.uniform("dropout")
        kept = {name: draws.uniform(f"dropout.{name}") >= self.rates.get(name, 0.0) for name in names}
        none, everything = rule < self.none, rule < self.none + self.all
        kept = {name: (keep | everything) & ~none for name, keep in kept.items()}
        low = self.none + self.all
        for name, share in self.alone.items():
            here = (rule >= low) & (rule < low + share)
            kept = {other: torch.where(here, other == name, keep) for other, keep in kept.items()}
            low += share
        return kept

    def expected(self, names: Sequence[str]) -> dict[str, float]:
        """Input name -> the share of rows that drop it."""
        alone = sum(self.alone.values())
        rest = max(1 - self.none - self.all - alone, 0.0)
        return {
            name: self.none + alone - self.alone.get(name, 0.0) + rest * self.rates.get(name, 0.0) for name in names
        }
