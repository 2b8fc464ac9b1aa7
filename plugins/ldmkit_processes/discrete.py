"""Variance-preserving diffusion over a table of timesteps: every latent-diffusion and Stable Diffusion model."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator
from torch import Tensor

from ldmkit import Example, Process, SpecError
from ldmkit_processes import schedules

Schedule = Literal["linear-sqrt", "linear", "cosine", "sqrt", "betas", "alpha-bars"]
Prediction = Literal["eps", "v", "x0"]
TimeRule = Literal["interpolate", "round", "floor", "nearest"]


class Table(NamedTuple):
    """For timesteps 0 ... T-1, in float64: beta, alpha_bar, sigma = sqrt((1 - alpha_bar) / alpha_bar), log sigma."""

    betas: tuple[float, ...]
    alpha_bars: tuple[float, ...]
    sigmas: tuple[float, ...]
    log_sigmas: tuple[float, ...]


class Posterior(NamedTuple):
    """q(z_{t-1} | z_t, x0) on the process's own scale: mean = on_x0 * x0 + on_z * z_t, and its variance."""

    on_x0: float
    on_z: float
    variance: float
    log_variance: float


class Discrete(Process):
    """z_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) n, t = 0 ... T-1 (Ho et al. 2020, equation 4).

    Args:
        schedule: how beta changes from `beta_start` to `beta_end`; "betas" and "alpha-bars" use `values` instead.
        values: the table for these schedules.
        cosine_s: offset of the cosine schedule.
        prediction: what the network returns: the noise, v = sqrt(alpha_bar) n - sqrt(1 - alpha_bar) x0, or x0.
        zero_terminal_snr: rescale so that the last step is pure noise (Lin et al. 2023); not with eps.
        terminal_alpha_bar: alpha_bar of that step, instead of 0, so that sigma is finite.
        time_rule: the time for the network at a sigma between two timesteps. "interpolate": the fractional timestep,
            linear in log sigma; "round", "floor": an integer of that; "nearest": the timestep of the nearest
            sigma, which then also replaces sigma in the scalings (as the published SDXL code does).
        between: the same for a sigma that a sampler uses between those of the grid: as `time_rule`, or "interpolate"
            (diffusers' second-order samplers round only the levels of their grid).
        start: a run starts from unit noise n as sqrt(1 + sigma^2) n ("variance": that of the noisy data), or as
            sigma n ("noise": what diffusers' sigma-based schedulers do).
        finish: the latents of a run that ends at a sigma above 0: its last state on the process's own scale
            ("variance"), or unscaled, x0 + sigma n ("noise": what diffusers' sigma-based schedulers do).
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"prediction": "v", "zero_terminal_snr": True}),
        Example({"prediction": "x0", "schedule": "cosine", "steps": 100}),
        Example({"prediction": "v", "schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "steps": 500}),
        Example({"schedule": "sqrt", "beta_start": 0.0015, "beta_end": 0.0195, "time_rule": "nearest"}),
        Example({"schedule": "alpha-bars", "values": (0.9, 0.5, 0.1), "steps": 3, "time_rule": "round"}),
    )
    schedule: Schedule = "linear-sqrt"
    beta_start: float = Field(default=0.00085, gt=0, lt=1)
    beta_end: float = Field(default=0.012, gt=0, lt=1)
    steps: int = Field(default=1000, ge=2, le=1_000_000)
    values: tuple[float, ...] = Field(default=(), repr=False)
    cosine_s: float = Field(default=0.008, ge=0)
    prediction: Prediction = "eps"
    zero_terminal_snr: bool = False
    terminal_alpha_bar: float = Field(default=schedules.SMALLEST_ALPHA_BAR, gt=0, lt=1e-3)
    time_rule: TimeRule = "interpolate"
    between: Literal["same", "interpolate"] = "same"
    start: Literal["variance", "noise"] = "variance"
    finish: Literal["variance", "noise"] = "variance"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = self.schedule in ("betas", "alpha-bars")
        if given != bool(self.values):
            what = f"schedule {self.schedule!r} " + ("needs `values`" if given else "takes no `values`")
            raise SpecError("schedule-values", what, where="process.values")
        if given and len(self.values) != self.steps:
            what = f"{len(self.values)} values for {self.steps} steps"
            raise SpecError("schedule-values", what, where="process.values", fits=f"steps = {len(self.values)}")
        if any(not 0 < v < 1 for v in self.values):
            raise SpecError("schedule-range", "every value lies strictly between 0 and 1", where="process.values")
        if self.zero_terminal_snr and self.prediction == "eps":
            what = "a network that predicts eps does not determine x0 if the signal is zero"
            raise SpecError("zero-snr-eps", what, where="process.zero_terminal_snr", fits='prediction "v" or "x0"')
        sigmas = self.table.sigmas
        if any(b <= a for a, b in itertools.pairwise(sigmas)):
            raise SpecError("schedule-order", "the noise level does not increase with the timestep", where="process")
        return self

    @property
    def table(self) -> Table:
        """The numbers of the schedule, computed once per value."""
        return _table(self)

    @property
    def timesteps(self) -> int:
        return self.steps

    @property
    def sigma_min(self) -> float:
        return self.table.sigmas[0]

    @property
    def sigma_max(self) -> float:
        return self.table.sigmas[-1]

    def alpha(self, sigma: float) -> float:
        return 1 / math.sqrt(1 + sigma * sigma)

    def prior(self, noise: Tensor, sigma: float) -> Tensor:
        return noise * sigma if self.start == "noise" else super().prior(noise, sigma)

    def settled(self, x: Tensor, sigma: float) -> Tensor:
        return x if self.finish == "noise" else super().settled(x, sigma)

    def sigma(self, u: float) -> float:
        return self.table.sigmas[min(int(u * self.steps + 1e-9), self.steps - 1)]  # 0.29 of 100 is 28.999...

    def time(self, sigma: float) -> float:
        """The timestep, exact for a sigma of the table, and clamped to the first and the last."""
        if self.time_rule == "nearest":
            return float(self._nearest(sigma))
        time = self._interpolated(sigma)
        if self.time_rule == "interpolate":
            return time
        return float(round(time) if self.time_rule == "round" else math.floor(time))

    def time_between(self, sigma: float) -> float:
        return self.time(sigma) if self.between == "same" else self._interpolated(sigma)

    def _interpolated(self, sigma: float) -> float:
        sigmas, logs = self.table.sigmas, self.table.log_sigmas
        if sigma <= sigmas[0]:
            return 0.0
        above = bisect_left(sigmas, sigma)
        if above == self.steps:
            return float(self.steps - 1)
        if sigmas[above] == sigma:
            return float(above)
        low, high = logs[above - 1], logs[above]
        return above - 1 + (math.log(sigma) - low) / (high - low)

    def sigma_of_time(self, time: float) -> float:
        """sigma of a timestep in [0, T-1], which need not be an integer.

        Raises:
            SpecError: outside the table.
        """
        if not 0 <= time <= self.steps - 1:
            raise SpecError("timestep-range", f"there is no timestep {time}", fits=f"0 to {self.steps - 1}")
        below = int(time)
        if below == time:
            return self.table.sigmas[below]
        logs = self.table.log_sigmas
        return math.exp(logs[below] + (time - below) * (logs[below + 1] - logs[below]))

    def scalings(self, sigma: float) -> tuple[float, float, float]:
        if self.time_rule == "nearest":
            sigma = self.table.sigmas[self._nearest(sigma)]
        a = self.alpha(sigma)
        if self.prediction == "eps":
            return 1.0, -sigma, a
        if self.prediction == "x0":
            return 0.0, 1.0, a
        return a * a, -a * sigma, a

    def posterior(self, timestep: int) -> Posterior:
        """q(z_{t-1} | z_t, x0) (Ho et al. 2020, equations 6 and 7); variance 0 at t = 0, its logarithm clipped."""
        bars = self.table.alpha_bars
        bar, before = bars[timestep], bars[timestep - 1] if timestep else 1.0
        alpha = bar / before
        variance = (1 - alpha) * (1 - before) / (1 - bar)
        on_x0 = (1 - alpha) * math.sqrt(before) / (1 - bar)
        on_z = (1 - before) * math.sqrt(alpha) / (1 - bar)
        return Posterior(on_x0, on_z, variance, math.log(max(variance, 1e-20)))

    def _nearest(self, sigma: float) -> int:
        sigmas = self.table.sigmas
        above = min(max(bisect_left(sigmas, sigma), 1), self.steps - 1)
        return above - 1 if sigma - sigmas[above - 1] <= sigmas[above] - sigma else above


@lru_cache(maxsize=64)
def _table(process: Discrete) -> Table:
    start, end, steps = process.beta_start, process.beta_end, process.steps
    if process.schedule == "alpha-bars":
        bars = list(process.values)
    elif process.schedule == "betas":
        bars = schedules.cumulative(process.values)
    elif process.schedule == "cosine":
        bars = schedules.cumulative(schedules.cosine(process.cosine_s, steps))
    elif process.schedule == "linear-sqrt":
        bars = schedules.cumulative(schedules.linear_sqrt(start, end, steps))
    elif process.schedule == "linear":
        bars = schedules.cumulative(schedules.linear(start, end, steps))
    else:
        bars = schedules.cumulative(schedules.square_root(start, end, steps))
    if process.zero_terminal_snr:
        bars = schedules.zero_terminal(bars, process.terminal_alpha_bar)
    betas = tuple(1 - bar / before for before, bar in zip([1.0, *bars], bars, strict=False))
    sigmas = tuple(math.sqrt((1 - bar) / bar) for bar in bars)
    return Table(betas, tuple(bars), sigmas, tuple(math.log(s) for s in sigmas))
