"""Grids over noise levels, for any process."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ldmkit import Example, Grid, InputError, Process, SpecError
from ldmkit_samplers.grids.checks import check_sigmas, check_steps
from ldmkit_samplers.grids.timesteps import Leading, Linspace, TimestepGrid, Trailing

End = Literal["zero", "sigma_min", "smallest"]

COUNTED = {"end": ("zero", "sigma_min")}
"""Ends with as many transitions as steps; "smallest" has one fewer on purpose, and so is not covered by that check."""
Within = Literal["all", "leading", "trailing", "linspace"]


class SigmaGrid(Grid):
    """A curve from the largest noise level to the smallest.

    Args:
        end: "zero": `steps` values from largest to smallest, then 0. "sigma_min": steps + 1 values, both ends included.
            "smallest": `steps` values, both ends included, and so one transition fewer: what diffusers runs where it
            repeats the smallest.
        largest, smallest: noise levels; where not given, the process's own, or those of `within`.
        within: "leading", "trailing" and "linspace" use the noisiest and the least noisy timestep of that grid with the
            same number of steps.
        offset: offset of the grid "leading".
    """

    end: End = "zero"
    largest: float | None = Field(default=None, gt=0)
    smallest: float | None = Field(default=None, gt=0)
    within: Within = "all"
    offset: int = Field(default=0, ge=0)

    @abstractmethod
    def at(self, position: float, largest: float, smallest: float) -> float:
        """The noise level at a position in [0, 1], from largest to smallest."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        """Raises InputError: fewer than one step, or limits that the process does not have."""
        where = f"grid {type(self).__name__}"
        gaps = check_steps(steps) - (0 if self.end == "sigma_min" else 1)
        if not gaps and self.end == "smallest":
            what = f"with {steps} step this grid starts where it ends, at the smallest noise level"
            raise InputError("no-transition", what, where=where, fits="2 steps or more")
        largest, smallest = self._limits(process, steps, where)
        inner = [self.at(i / gaps, largest, smallest) for i in range(1, gaps)]
        ends = [largest, smallest] if gaps else [largest]
        values = [ends[0], *inner, *ends[1:], *([0.0] if self.end == "zero" else [])]
        return check_sigmas(values, where, "fewer steps")

    def _limits(self, process: Process, steps: int, where: str) -> tuple[float, float]:
        first, last = self._visited(process, steps)
        largest = first if self.largest is None else self.largest
        smallest = last if self.smallest is None else self.smallest
        alone = steps == 1 and self.end == "zero" and smallest == largest
        if not (smallest < largest or alone) or not largest <= process.sigma_max * (1 + 1e-6):
            fits = f"smallest < largest <= {process.sigma_max:.6g}"
            raise InputError("grid-range", f"cannot go from {largest:.6g} to {smallest:.6g}", where=where, fits=fits)
        return largest, smallest

    def _visited(self, process: Process, steps: int) -> tuple[float, float]:
        """The largest and the smallest available noise level."""
        if self.within == "all":
            return process.sigma_max, process.sigma_min
        grids: dict[str, TimestepGrid] = {
            "leading": Leading(offset=self.offset),
            "trailing": Trailing(),
            "linspace": Linspace(alone="first"),
        }
        levels = grids[self.within].sigmas(process, steps)
        return levels[0], levels[-2]


class Karras(SigmaGrid):
    """Equal steps in sigma^(1/rho) (Karras et al. 2022, equation 5)."""

    examples: ClassVar[tuple[Example, ...]] = (
        Example(vary=COUNTED),
        Example({"end": "sigma_min"}),
        Example({"rho": 3.0}),
    )
    rho: float = Field(default=7.0, gt=0)

    def at(self, position: float, largest: float, smallest: float) -> float:
        high, low = largest ** (1 / self.rho), smallest ** (1 / self.rho)
        return float((high + position * (low - high)) ** self.rho)


class Exponential(SigmaGrid):
    """Equal steps in log sigma, then 0."""

    examples: ClassVar[tuple[Example, ...]] = (Example(vary=COUNTED), Example({"largest": 10.0, "smallest": 0.1}))

    def at(self, position: float, largest: float, smallest: float) -> float:
        return math.exp(math.log(largest) + position * (math.log(smallest) - math.log(largest)))


class LogSNR(Exponential):
    """Equal steps in log SNR = -2 log sigma, ending at the smallest level (Lu et al. 2022, DPM-Solver, section 3.3)."""

    examples: ClassVar[tuple[Example, ...]] = (Example(vary=COUNTED), Example({"end": "zero"}))
    end: End = "sigma_min"


class FlowShift(Grid):
    """Equal steps in the time of a flow, t = 1 - i / steps, shifted towards noise: sigma = shift * t / (1 - t).

    Esser et al. 2024, equation 23, whatever the resolution. The first value is the process's largest, so on a
    process with a finite end the times start at the one that the shift brings there.

    Args:
        shift: 1 is uniform in t.
        t_last: the last time before 0, reached in equal steps; None: 1 / steps.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"shift": 3.0}), Example({"t_last": 0.001}))
    shift: float = Field(default=1.0, gt=0)
    t_last: float | None = Field(default=None, gt=0, lt=1)

    def sigmas(self, process: Process, steps: int) -> list[float]:
        """Raises InputError: fewer than one step, or times that do not decrease."""
        check_steps(steps)
        unshifted = process.sigma_max / self.shift
        first = unshifted / (1 + unshifted)
        last = first / steps if self.t_last is None else self.t_last
        times = [first + (last - first) * i / (steps - 1) for i in range(1, steps)]
        values = [process.sigma_max, *(self.shift * t / (1 - t) for t in times), 0.0]
        return check_sigmas(values, "grid FlowShift", "a smaller t_last")


class FlowSizeShift(Grid):
    """`FlowShift` with a shift that grows with the size of the latents, as in FLUX and Qwen-Image.

    The shift is e^mu, with mu on the line through (`base_tokens`, `base_mu`) and (`full_tokens`, `full_mu`), beyond
    them too; tokens are latents of `patch` x `patch` cells. Without a size it is that of `full_tokens`.

    Args:
        curve: "exponential" shifts by e^mu, "linear" by mu itself.
        terminal: stretch times so that the last one before 0 has this value; None: do not stretch.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"full_tokens": 8192, "full_mu": 0.9, "terminal": 0.02}),
        Example({"curve": "linear", "patch": 1}),
    )
    base_tokens: int = Field(default=256, ge=1)
    full_tokens: int = Field(default=4096, ge=1)
    base_mu: float = 0.5
    full_mu: float = 1.15
    patch: int = Field(default=2, ge=1)
    curve: Literal["exponential", "linear"] = "exponential"
    terminal: float | None = Field(default=None, gt=0, lt=1)
    tokens: int | None = Field(default=None, ge=1)
    """Number of tokens in the run; None: `full_tokens`."""

    @model_validator(mode="after")
    def _line(self) -> Self:
        if self.base_tokens == self.full_tokens:
            fits = "two numbers of tokens"
            raise SpecError("invalid", "a line needs two different numbers of tokens", where="full_tokens", fits=fits)
        return self

    def at_size(self, size: tuple[int, ...]) -> Grid:
        return self.model_copy(update={"tokens": max(1, math.prod(-(-side // self.patch) for side in size))})

    @property
    def shift(self) -> float:
        """The factor of all noise levels."""
        tokens = self.full_tokens if self.tokens is None else self.tokens
        slope = (self.full_mu - self.base_mu) / (self.full_tokens - self.base_tokens)
        mu = self.base_mu + slope * (tokens - self.base_tokens)
        return math.exp(mu) if self.curve == "exponential" else mu

    def sigmas(self, process: Process, steps: int) -> list[float]:
        """Raises InputError: fewer than one step, a shift that is not positive, or times that do not decrease."""
        if self.shift <= 0:
            what = f"a linear shift of {self.shift:.4g} for {self.tokens} tokens"
            raise InputError(
                "grid-range", what, where="grid FlowSizeShift", fits='a larger picture, or curve="exponential"'
            )
        levels = FlowShift(shift=self.shift).sigmas(process, steps)
        if self.terminal is None or len(levels) < 3:
            return levels
        kept = [1 / (1 + level) for level in levels]  # 1 - t
        stretch = (1 - self.terminal) / kept[-2]
        stretched = [process.sigma_max, *(1 / (k * stretch) - 1 for k in kept[1:-1]), 0.0]
        return check_sigmas(stretched, "grid FlowSizeShift", "a smaller terminal")


class Explicit(Grid):
    """The given noise levels, steps + 1 of them, strictly decreasing; the last may be 0."""

    examples: ClassVar[tuple[Example, ...]] = (
        Example({"values": (5.0, 1.0, 0.0)}),
        Example({"values": (9.0, 4.0, 1.0)}),
    )
    values: tuple[float, ...]

    @property
    def own_steps(self) -> int:
        return len(self.values) - 1

    def sigmas(self, process: Process, steps: int) -> list[float]:
        """Raises InputError: values that do not decrease, or another number of steps."""
        values = check_sigmas(self.values, "grid Explicit")
        if check_steps(steps) != len(values) - 1:
            fits = f"{len(values) - 1} steps"
            raise InputError("grid-length", f"{len(values)} noise levels for {steps} steps", where="steps", fits=fits)
        return values
