"""The grids of guided-diffusion: timesteps spread evenly over sections of the table, and its rule for DDIM."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ldmkit import Example, InputError, Process, SpecError
from ldmkit.bounds import MAX_STEPS
from ldmkit_samplers.grids.timesteps import TimestepGrid

_Count = Annotated[int, Field(ge=1, le=MAX_STEPS)]


class Respaced(TimestepGrid):
    """`timestep_respacing` of improved-diffusion and guided-diffusion (Nichol & Dhariwal 2021, section 4).

    Args:
        rule: "even": from the first timestep of a section to its last, equally spaced and rounded half to even ("250");
            "ddim": 0, c, 2c, ... with the smallest stride c that makes as many timesteps as there are steps ("ddim25").
        sections: steps in each of several sections of equal length ("10,15,20"), from timestep 0 on; empty: one section
            with all steps.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(vary={"end": ("zero",)}),  # timestep 0 is in the grid: a run that ends on it has a transition less
        Example({"rule": "ddim"}, vary={"end": ("zero",)}),
        Example({"sections": (2, 3)}, vary={"end": ("zero",)}),
    )
    name: ClassVar[str] = "respaced"
    rule: Literal["even", "ddim"] = "even"
    sections: tuple[_Count, ...] = ()

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.sections and self.rule == "ddim":
            raise SpecError("invalid", "the rule for DDIM has one section", where="sections", fits="()")
        return self

    @property
    def own_steps(self) -> int | None:
        return sum(self.sections) or None

    def sigmas(self, process: Process, steps: int) -> list[float]:
        """Raises InputError: steps that this rule does not make, or sections that do not hold theirs."""
        if self.sections and steps != self.own_steps:
            what = f"sections of {self.own_steps} steps for {steps}"
            raise InputError("grid-length", what, where="steps", fits=f"{self.own_steps} steps")
        return super().sigmas(process, steps)

    def timesteps(self, total: int, steps: int) -> list[float]:
        rising = _strided(total, steps) if self.rule == "ddim" else _spread(total, self.sections or (steps,))
        return [float(time) for time in reversed(rising)]


def _strided(total: int, steps: int) -> list[int]:
    """0, c, 2c, ... of `steps` timesteps, with the smallest stride c that makes as many; none if there is none."""
    for stride in range(1, total):
        if len(range(0, total, stride)) == steps:
            return list(range(0, total, stride))
    return []


def _spread(total: int, sections: tuple[int, ...]) -> list[int]:
    """Timesteps of every section from its first to its last; none if a section is shorter than its count."""
    size, longer = divmod(total, len(sections))
    times: list[int] = []
    start = 0
    for place, count in enumerate(sections):
        length = size + (place < longer)
        if length < count:
            return []
        stride, offset = (length - 1) / (count - 1) if count > 1 else 1.0, 0.0
        for _ in range(count):
            times.append(start + round(offset))
            offset += stride  # summed up, as published: what a sum rounds to decides where a half falls
        start += length
    return times
