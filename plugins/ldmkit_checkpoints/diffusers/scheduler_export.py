"""A run's defaults as a diffusers scheduler, read again and run beside the original: what it changes is said.

Whole runs of a stand-in for the network are compared, for grids and samplers of other names and options may be the
same, and those of the same names are not always. What a scheduler's config is read as here is in turn what diffusers
runs (tests/parity/test_scheduler_sweep.py).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import torch
from ldmkit_processes.discrete import Discrete
from torch import Tensor

from ldmkit import (
    Denoised,
    Grid,
    InputError,
    LdmkitError,
    Need,
    Noise,
    PartSpec,
    PipelineSpec,
    Sampler,
    SourceError,
    get,
)
from ldmkit_checkpoints.diffusers.scheduler import read_scheduler
from ldmkit_checkpoints.diffusers.scheduler_config import candidates, cannot_run, class_of
from ldmkit_checkpoints.diffusers.scheduler_fields import repaired

COUNTS = (10, 20, 50)
"""Numbers of steps that are compared besides the model's own."""
TOLERANCE = 1e-4
"""Of the largest value of the last state: what whole runs of diffusers' schedulers in float32 are held to."""
ZERO_SIGNAL = 3e-4
"""The same where the last alpha_bar is 0: what stands for it here is 2^-24, and 2^-12 = 2.4e-4 of x0 is off."""
SMALLEST = torch.finfo(torch.float32).tiny
GAINS = (1.0, 8.0)
"""Of the stand-in: with the second, bounds of x0 are met."""
SHAPE = (3, 4)


class Exported(NamedTuple):
    """scheduler_config.json, what it changes of the model's defaults (empty: nothing), and what has to be said to
    diffusers' pipeline in every call instead."""

    config: dict[str, Any]
    lost: str
    arguments: dict[str, Any]


class RunDefaults(NamedTuple):
    """A process, sampler and grid of a run."""

    process: Discrete
    sampler: Sampler
    grid: Grid

    @classmethod
    def of(cls, process: PartSpec, sampler: PartSpec, grid: PartSpec) -> RunDefaults:
        """By their specs."""
        ways = (get("sampler", sampler.type).of(sampler.config), get("grid", grid.type).of(grid.config))
        return cls(Discrete.of(process.config), *ways)

    def levels(self, steps: int) -> tuple[float, ...]:
        """Noise levels of a run; none where the grid has none for that number."""
        try:
            return tuple(self.grid.sigmas(self.process, steps))
        except InputError:
            return ()

    def times(self, steps: int) -> list[float]:
        """What the network reads at each of them."""
        return [self.process.time(level) for level in self.levels(steps) if level > 0]

    def last(self, steps: int, gain: float) -> Tensor:
        """The last state of a run, of a network that is any smooth function, `gain` at most."""
        levels, noise = self.levels(steps), Noise([0], SHAPE)
        arrivals = self.grid.arrivals(self.process, steps)
        sampler = self.sampler if arrivals is None else self.sampler.arriving(arrivals)
        x = self.process.prior(noise(0, "start").double(), levels[0])
        *_, step = sampler.steps(_StandIn(self.process, frozenset(levels), gain), x, levels, noise)
        return self.process.settled(step.x, step.sigma_next)


class _StandIn(NamedTuple):
    """`denoise` of a network that is any smooth function, and more than x0 for samplers that ask for it."""

    process: Discrete
    visited: frozenset[float]
    gain: float

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        skip, out, scale = self.process.scalings(sigma)
        time = self.process.time(sigma) if sigma in self.visited else self.process.time_between(sigma)
        bent = torch.tanh(0.7 * (scale * x) + 0.3 * (scale * x).roll(1, -1) + 0.2)
        return skip * x + out * self.gain * bent * (0.8 + time / (4 * self.process.steps))

    def estimate(self, x: Tensor, sigma: float, *needs: Need) -> Denoised:
        x0 = self(x, sigma)
        return Denoised(x0, 0.9 * x0, torch.full_like(x0, 0.5))


def exported_scheduler(spec: PipelineSpec, classes: Collection[str] | None = None, pipeline: str = "") -> Exported:
    """The scheduler that comes nearest to a spec's process, sampler and grid.

    Args:
        classes: those that the pipeline runs as they are; None: all.
        pipeline: whose class repairs some configs when it loads them.

    Raises:
        SourceError: `not-expressible`: a schedule or prediction that diffusers does not have.
    """
    process, sampler, grid = Discrete.of(spec.process.config), spec.defaults.sampler, spec.defaults.grid
    mine = RunDefaults.of(spec.process, sampler, grid)
    kept: list[Exported] = []
    why = "" if class_of(sampler) else f"diffusers has no scheduler for {sampler.type!r}"
    for config in candidates(process, sampler, grid):
        if classes is not None and config["_class_name"] not in classes:
            continue
        if reason := cannot_run(config):
            why = reason
            continue
        try:
            plan = read_scheduler(repaired(config, pipeline)[0], "scheduler")
        except LdmkitError:
            continue  # no such combination
        arguments = _arguments(sampler, plan.sampler)
        exact = plan.sampler.model_copy(
            update={"config": {**plan.sampler.config, **_own_options(plan.sampler, arguments)}}
        )
        there = RunDefaults.of(plan.process, exact, plan.grid)
        if reason := _table_lost(process, there.process):
            why = f"{config['_class_name']} of diffusers {reason}"
            continue
        lost = _difference(mine, there, {spec.defaults.steps, *COUNTS})
        kept.append(Exported(config, _warning(spec, config, exact, plan.grid, lost, why) if lost else "", arguments))
        if not lost:
            return kept[-1]
    if not kept:
        raise SourceError("not-expressible", why or "diffusers has no scheduler for it", where="process")
    return kept[0]


def _arguments(ours: PartSpec, theirs: PartSpec) -> dict[str, Any]:
    """Of a call in diffusers: what its schedulers take there and nowhere else."""
    if ours.type == theirs.type == "ddim" and ours.config.get("eta"):
        return {"eta": ours.config["eta"]}
    if ours.type == theirs.type == "tcd":  # its pipelines pass 0 unless a call says otherwise
        return {"eta": ours.config.get("gamma", 0.3)}
    return {}


def _own_options(sampler: PartSpec, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"gamma" if sampler.type == "tcd" else key: value for key, value in arguments.items()}


def _table_lost(ours: Discrete, theirs: Discrete) -> str:
    """How a table of noise levels comes out as another one; empty where it does not."""
    if (least := min(ours.table.alpha_bars)) < SMALLEST:
        return f"holds alpha_bar in float32, which makes {least:.2g} to 0"
    if ours.zero_terminal_snr and not theirs.zero_terminal_snr:
        return "has no zero terminal SNR"
    if ours.steps != theirs.steps or not all(map(_equal, ours.table.sigmas, theirs.table.sigmas)):
        return f"has no noise levels of schedule {ours.schedule!r} as they are here"
    return ""


def _equal(ours: float, theirs: float) -> bool:
    """Of noise levels; those above 1000 stand for pure noise."""
    return math.isclose(ours, theirs, rel_tol=1e-5) or (ours > 1000 and theirs > 1000)


def _difference(ours: RunDefaults, theirs: RunDefaults, counts: Iterable[int]) -> str:
    """The first thing that differs, in words; empty where whole runs of every number of steps are the same."""
    limit = ZERO_SIGNAL if ours.process.zero_terminal_snr else TOLERANCE
    own = ours.grid.own_steps
    for steps in sorted(counts) if own is None else [own]:
        mine = ours.levels(steps)
        if not mine:
            continue
        if found := _first(mine, theirs.levels(steps), "noise level"):
            return f"in {steps} steps, {found}"
        if found := _first(ours.times(steps), theirs.times(steps), "the network's timestep"):
            return f"in {steps} steps, {found}"
        unit = torch.ones(1, dtype=torch.float64)
        starts = [float(run.process.prior(unit, mine[0])) for run in (ours, theirs)]
        if not math.isclose(*starts, rel_tol=1e-5):
            return f"it starts from noise times {starts[1]:.6g} in place of {starts[0]:.6g}"
        apart = max(_deviation(theirs.last(steps, gain), ours.last(steps, gain)) for gain in GAINS)
        if not apart <= limit:
            return f"whole runs of {steps} steps end {apart:.1g} of the largest value apart"
    return ""


def _deviation(found: Tensor, right: Tensor) -> float:
    return float((found - right).abs().max() / right.abs().max())


def _first(ours: Iterable[float], theirs: Iterable[float], what: str) -> str:
    mine, other = list(ours), list(theirs)
    if len(mine) != len(other):
        return f"it has {len(other)} of {what}s in place of {len(mine)}"
    place = next((i for i, (a, b) in enumerate(zip(mine, other, strict=True)) if not _equal(a, b)), None)
    return "" if place is None else f"{what} {place} is {other[place]:.6g} in place of {mine[place]:.6g}"


def _warning(spec: PipelineSpec, config: dict[str, Any], sampler: PartSpec, grid: PartSpec, lost: str, why: str) -> str:
    name, mine = config["_class_name"], (spec.defaults.sampler.type, spec.defaults.grid.type)
    default = f"the default sampler {mine[0]!r} on the grid {mine[1]!r}"
    if (sampler.type, grid.type) == mine:
        return f"{name} is not quite {default}: {lost}"
    stands = f"{name} ({sampler.type!r} on {grid.type!r}) stands for {default}"
    return f"{why + ': ' if why else ''}{stands}, and draws other pictures: {lost}"
