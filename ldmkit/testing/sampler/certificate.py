"""Measured certificates of samplers: order, error, cost, and possible numbers of steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ldmkit.contracts.process import Process
from ldmkit.contracts.sampler import Sampler
from ldmkit.testing.reference import Prediction, Reference, Rho7, predicted
from ldmkit.testing.sampler.convergence import (
    MIXTURE,
    NotLinear,
    error,
    is_drawn,
    path,
    run_levels,
    slope,
    weak_error,
)
from ldmkit.testing.sampler.marginals import marginals
from ldmkit.testing.sampler.runs import humps

FEW, SOME, COARSE, FINE = 10, 20, 160, 320
TRIED = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500, 1000)
EXACT = 1e-9
"""Errors below this are rounding errors: no order can be measured."""


@dataclass(frozen=True)
class Certificate:
    """Measured facts of a sampler with networks of one prediction type.

    Without noise, errors are root mean squares against the exact solution of the ODE on a Gaussian mixture of unit
    size. With noise, they are the larger error of mean and variance on Gaussian data, and the order is a weak one.

    Args:
        sampler: its class and fields.
        prediction: what the network returns.
        revision: revision of its numerics; None if it has none.
        stochastic: whether it draws noise.
        calls: (a, b): N steps to sigma 0 call the network a N + b times.
        declared: the order that it declares.
        measured: order between 160 and 320 steps; None if the error is rounding, or no exact solution is known.
        few, some: error after 10 and 20 steps; None if no exact solution is known.
        constant: C of an error C / N^p at 320 steps, p the nearest integer to the measured order.
        floor: rounding error of float32: root mean square difference to the float64 state after 320 steps.
        failing: numbers of steps in `TRIED` that do not end in finite values of the data's magnitude, in float32.
        distance, p: results of the test of moments (`marginals`); None without noise.
    """

    sampler: str
    prediction: Prediction
    revision: int | None
    stochastic: bool
    calls: tuple[float, float]
    declared: int | None
    measured: float | None
    few: float | None
    some: float | None
    constant: float | None
    floor: float
    failing: tuple[int, ...]
    distance: float | None
    p: float | None


def certify(sampler: Sampler, prediction: Prediction = "eps", *, moments: bool = True) -> Certificate:
    """Measure a sampler with an exact network of one prediction type; takes about half a second.

    Args:
        prediction: "eps", "v" and "x0" over the noise levels of Stable Diffusion; "flow" from sigma 80, and from 2^20
            for the possible numbers of steps.
        moments: whether to run the statistical test if the sampler draws noise.
    """
    process = Reference(prediction=prediction)
    stochastic = is_drawn(sampler)
    law = _law(sampler, process, stochastic)
    errors = {count: law(count) for count in (FEW, SOME, COARSE, FINE)} if law else {}
    fine = errors.get(FINE, 0.0)
    measured = slope(errors[COARSE], fine) if fine > EXACT else None
    tested = moments and stochastic and sampler.estimate != "distilled"
    found = marginals(sampler, process) if tested else None
    return Certificate(
        sampler=repr(sampler),
        prediction=prediction,
        revision=getattr(sampler, "revision", None),
        stochastic=stochastic,
        calls=calls(sampler),
        declared=sampler.order,
        measured=measured,
        few=errors.get(FEW),
        some=errors.get(SOME),
        constant=None if measured is None else fine * float(FINE) ** round(measured),
        floor=_floor(sampler, process),
        failing=tuple(count for count in TRIED if not _ends(sampler, process, count)),
        distance=found.distance if found else None,
        p=found.p if found else None,
    )


def _law(sampler: Sampler, process: Process, stochastic: bool) -> Callable[[int], float] | None:
    """The error as a function of the number of steps; None if no exact solution is known."""
    if sampler.estimate == "distilled" or (sampler.estimate == "end" and not stochastic):
        return None
    if not stochastic:
        return lambda count: error(sampler, process, count)
    try:
        weak_error(sampler, process, FEW)
    except NotLinear:
        return None
    return lambda count: weak_error(sampler, process, count)


def calls(sampler: Sampler) -> tuple[float, float]:
    """(a, b): N steps call the network a N + b times, determined from 100 and 200 steps."""
    first, second = sampler.evaluations(100), sampler.evaluations(200)
    each = (second - first) / 100
    return each, first - 100 * each


def _floor(sampler: Sampler, process: Process) -> float:
    """Root mean square difference between a run in float32 and the same run in float64."""
    denoise, start, sigmas = predicted(process, MIXTURE.denoise), path(process).start, run_levels(process, FINE)

    def noise(index: int) -> Tensor:
        return torch.randn(start.shape, generator=torch.Generator().manual_seed(index))

    ends = [
        list(sampler.steps(denoise, start.to(t), sigmas, noise))[FINE - 1].x for t in (torch.float32, torch.float64)
    ]
    return float((ends[0].double() - ends[1]).square().mean().sqrt())


def _ends(sampler: Sampler, process: Process, count: int) -> bool:
    """Whether a float32 run over the whole process ends in values of the data's magnitude."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, 3, 4, 4), generator=generator) * process.sigma_max

    def noise(index: int) -> Tensor:
        return torch.randn(x.shape, generator=torch.Generator().manual_seed(index))

    run = sampler.steps(predicted(process, humps), x, Rho7().sigmas(process, count), noise)
    largest = float(list(run)[-1].x.abs().max())
    return math.isfinite(largest) and largest < 10
