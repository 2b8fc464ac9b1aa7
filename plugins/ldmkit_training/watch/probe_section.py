"""The probe section of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ldmkit import Value

SILENT = 0.005
"""A condition whose swap and null change the prediction by less than this (relative L2) does nothing yet, unless the
loss is significantly lower with the right one."""

Quantile = Annotated[float, Field(ge=0, lt=1)]


class ProbeSection(Value):
    """
    Args:
        every: steps between two probes.
        count: held-out rows.
        levels: noise levels, as quantiles of the process's own distribution.
        alone: also probe every condition with the others dropped.
        silent: see `SILENT`.
    """

    every: int = Field(default=500, ge=1)
    count: int = Field(default=32, ge=2)
    levels: tuple[Quantile, ...] = Field(default=(0.3, 0.6, 0.9), min_length=1)
    alone: bool = True
    silent: float = Field(default=SILENT, gt=0, lt=1)


class Probing(Value):
    """Keys of stages that train with conditions; their `Config` derives from it.

    Args:
        probe: how often and how the effect of each condition is measured; null: never.
    """

    probe: ProbeSection | None = ProbeSection()


def probe_of(recipe: Value) -> ProbeSection | None:
    """A recipe's probe section; None if it is null or the stage has none."""
    return recipe.probe if isinstance(recipe, Probing) else None
