"""The contract of processes: consistent scalings and targets, finite ends, and invertible times."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.example import Example
from ldmkit.contracts.process import Process
from ldmkit.errors import CompositionError
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import NotApplicable, Report, check, expect
from ldmkit.testing.rng import without_draws
from ldmkit.testing.tensors import expect_close, expect_equal


@dataclass(frozen=True)
class Subject:
    """A process to be checked."""

    process: Process


def subject(cls: type[Process], example: Example) -> Subject:
    """The subject of the checks: a process's class and one of its examples."""
    return Subject(cls.of(example.config))


def check_process(cls: type[Process], config: Mapping[str, Any] | None = None) -> Report:
    """Check a process with the given fields; None: with those of its examples."""
    return check_class("process", cls, None if config is None else Example(config))


def _levels(process: Process, count: int = 11) -> list[float]:
    """Noise levels from smallest to largest, both included, equally spaced in their logarithm."""
    low, high = math.log(process.sigma_min), math.log(process.sigma_max)
    inner = [math.exp(low + (high - low) * i / (count - 1)) for i in range(1, count - 1)]
    return [process.sigma_min, *inner, process.sigma_max]


def _data(rows: int) -> tuple[Tensor, Tensor]:
    """(x0, noise), float64 (rows, 3, 2, 2)."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn((2, rows, 3, 2, 2), generator=generator, dtype=torch.float64).unbind()
    return x0, noise


@check("process", "ends")
def ends(subject: Subject) -> None:
    """0 < sigma_min < sigma_max, both finite, and everything is finite at both.

    This includes scalings, time, alpha, prior and target. A schedule that ends in pure noise (a flow at t = 1, zero
    terminal SNR) has no finite sigma there: clamp it to a large one, such as 2^20.
    """
    process = subject.process
    low, high = process.sigma_min, process.sigma_max
    expect(0 < low < high < math.inf, "0 < sigma_min < sigma_max < infinity", f"{low} and {high}")
    x0, noise = (t.float() for t in _data(1))
    for sigma in (low, high):
        numbers = {"scalings": process.scalings(sigma), "time": process.time(sigma), "alpha": process.alpha(sigma)}
        for name, value in numbers.items():
            several = value if isinstance(value, tuple) else (value,)
            expect(all(math.isfinite(v) for v in several), f"finite {name} at sigma {sigma:.6g}", f"{value}")
        tensors = {"prior": process.prior(noise, sigma), "target": process.target(x0, noise, [sigma])}
        for name, tensor in tensors.items():
            expect(bool(tensor.isfinite().all()), f"a finite {name} at sigma {sigma:.6g}", "NaN or infinities")


@check("process", "host-scalars")
def host_scalars(subject: Subject) -> None:
    """Noise levels, times and scalings are Python floats, computed in float64.

    Tensors would have to be read back from the device, and NumPy float32 would round every step to seven digits.
    """
    process = subject.process
    sigma = _levels(process)[5]
    found: dict[str, Any] = {
        "sigma_min": process.sigma_min,
        "sigma_max": process.sigma_max,
        "sigma(0.5)": process.sigma(0.5),
        "time(sigma)": process.time(sigma),
        "alpha(sigma)": process.alpha(sigma),
    }
    scalings = process.scalings(sigma)
    expect(isinstance(scalings, tuple) and len(scalings) == 3, "scalings(sigma) to be three floats", f"{scalings!r}")
    found |= {f"scalings(sigma)[{i}]": value for i, value in enumerate(scalings)}
    for name, value in found.items():
        expect(isinstance(value, float), f"{name} to be a float", f"{type(value).__name__} {value!r}")


@check("process", "target")
def target(subject: Subject) -> None:
    """A network that returns the target denoises exactly: skip x + out F = x0.

    At eleven noise levels over the whole range, one per row, in float64, within 1e-9 of the state's magnitude.
    Overriding `target` is rarely needed: it follows from the scalings.
    """
    process = subject.process
    sigmas = _levels(process)
    x0, noise = _data(len(sigmas))
    targets = process.target(x0, noise, sigmas)
    expect(targets.shape == x0.shape, f"a target of x0's shape {tuple(x0.shape)}", f"{tuple(targets.shape)}")
    for row, sigma in enumerate(sigmas):
        skip, out, scale = process.scalings(sigma)
        expect(scale > 0 and out != 0, f"scale > 0 and out not 0 at sigma {sigma:.6g}", f"{scale} and {out}")
        denoised = skip * (x0[row] + sigma * noise[row]) + out * targets[row]
        expect_close(denoised, x0[row], f"skip x + out target at sigma {sigma:.6g}, and x0", 1e-9 * (1 + sigma))


@check("process", "target-dtype")
def target_dtype(subject: Subject) -> None:
    """`target` and `prior` preserve shape and dtype, and do not write to their arguments.

    Checked with float32, bfloat16 and float64, for pictures and videos.
    """
    process = subject.process
    sigmas = _levels(process, 2)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for shape in ((2, 3, 2, 2), (2, 3, 2, 1, 2)):
            x0, noise = (t.to(dtype).view(shape) for t in _data(2))
            copies = x0.clone(), noise.clone()
            for name, found in (
                ("target", process.target(x0, noise, sigmas)),
                ("prior", process.prior(noise, process.sigma_max)),
            ):
                same = found.shape == noise.shape and found.dtype == dtype
                expect(same, f"a {name} of {dtype} {shape}", f"{found.dtype} {tuple(found.shape)}")
            expect_equal(x0, copies[0], "x0 after target and prior")
            expect_equal(noise, copies[1], "the noise after target and prior")


@check("process", "prior")
def prior(subject: Subject) -> None:
    """A run starts from noise whose standard deviation is between sigma_max and sigma_max + 1.

    `prior` converts unit noise from the process's own scale to x = x0 + sigma n: by a factor of sqrt(1 + sigma^2) for a
    variance-preserving process, 1 + sigma for a flow, and sigma without scaling.
    """
    process = subject.process
    noise = _data(4)[1]
    high = process.sigma_max
    found = process.prior(noise, high)
    factor = float((found * noise).sum() / noise.square().sum())
    expect_close(found, noise * factor, "the prior and a multiple of the noise", 1e-6 * high)
    inside = high * (1 - 1e-6) <= factor <= (high + 1) * (1 + 1e-6)
    expect(inside, f"the noise times {high:.6g} to {high + 1:.6g}", f"times {factor:.6g}")


@check("process", "alpha")
def alpha(subject: Subject) -> None:
    """`alpha` is in (0, 1] and does not increase with the noise level.

    It is the factor of the signal on the process's own scale; 1 if the process does not scale.
    """
    found = [subject.process.alpha(s) for s in _levels(subject.process)]
    expect(all(0 < a <= 1 for a in found), "alpha in (0, 1]", f"{found[0]:.6g} ... {found[-1]:.6g}")
    expect(all(a >= b for a, b in pairwise(found)), "alpha not to increase with sigma", f"{found}"[:160])


@check("process", "quantiles")
def quantiles(subject: Subject) -> None:
    """`sigma(u)` increases with u in [0, 1], within sigma_min and sigma_max.

    Training draws u uniformly. A table may give one level to neighbouring u, but not one to all of them.
    """
    process = subject.process
    found = [process.sigma(i / 200) for i in range(201)]
    expect(found == sorted(found), "sigma(u) to increase with u", "a decrease")
    low, high = process.sigma_min * (1 - 1e-9), process.sigma_max * (1 + 1e-9)
    inside = low <= found[0] and found[-1] <= high
    expect(inside, f"sigma(0) and sigma(1) within {low:.6g} to {high:.6g}", f"{found[0]:.6g} and {found[-1]:.6g}")
    expect(found[20] < found[180], "sigma(0.1) below sigma(0.9)", f"{found[20]:.6g} for both")


@check("process", "time")
def times(subject: Subject) -> None:
    """The network can tell noise levels apart: `time` is strictly monotonic in sigma.

    The network could not distinguish two levels with the same time. For a table, this applies to the levels of
    different timesteps, and the time of a level between two of them is between theirs: multi-stage samplers use such
    levels.
    """
    process = subject.process
    total = process.timesteps
    levels = _levels(process) if total is None else [process.sigma_of_time(t) for t in _timesteps(total)]
    found = [process.time(s) for s in levels]
    rises, falls = all(a < b for a, b in pairwise(found)), all(a > b for a, b in pairwise(found))
    expect(rises or falls, "times that rise with sigma, or fall", f"{found}"[:160])
    for t in _timesteps(total or 1)[:-1]:
        between = math.sqrt(process.sigma_of_time(t) * process.sigma_of_time(t + 1))
        time = process.time(between)
        expect(t <= time <= t + 1, f"a time from {t} to {t + 1} for a sigma between theirs", f"{time}")


def _timesteps(total: int) -> list[int]:
    """Some timesteps of a table, including the first and the last."""
    stride = max(1, total // 100)
    return [*range(0, total - 1, stride), total - 1]


@check("process", "inverse-time")
def inverse_time(subject: Subject) -> None:
    """`sigma_of_time` is the inverse of `time`.

    Continuous: within 1e-6 of sigma, over the whole range. A table: the level of timestep t has time t exactly; 0 is
    sigma_min and T - 1 is sigma_max. Grids over timesteps, and training at given times, rely on it.
    """
    process = subject.process
    total = process.timesteps
    if total is None:
        for sigma in _levels(process):
            try:
                again = process.sigma_of_time(process.time(sigma))
            except CompositionError as error:
                if error.code != "compose.no-timesteps":
                    raise
                raise NotApplicable("it has no noise level for a given time") from None
            expect(abs(again / sigma - 1) < 1e-6, f"sigma {sigma:.9g} from its own time", f"{again:.9g}")
        return
    for t in _timesteps(total):
        sigma = process.sigma_of_time(t)
        expect(process.time(sigma) == t, f"time {t} from its own sigma", f"{process.time(sigma)}")
    for t, wanted, name in ((0, process.sigma_min, "sigma_min"), (total - 1, process.sigma_max, "sigma_max")):
        found = process.sigma_of_time(t)
        expect(abs(found / wanted - 1) < 1e-9, f"timestep {t} at {name} = {wanted:.9g}", f"{found:.9g}")


@check("process", "pure", cause=True)
def pure(subject: Subject) -> None:
    """The same arguments give the same results: nothing is random, and no state is kept.

    A process is a value that threads share. Training calls `sigma(u)` with its own random u; if the process drew it,
    training could not be resumed exactly.
    """
    process = subject.process
    first, second = (without_draws(lambda: _answers(process), seed) for seed in (1, 2))
    for name, value in first.items():
        expect(
            value == second[name], f"{name} to be the same the second time", f"{value!r}, then {second[name]!r}"[:160]
        )


def _answers(process: Process) -> dict[str, Any]:
    levels = _levels(process, 5)
    x0, noise = _data(5)
    return {
        "sigma(u)": [process.sigma(i / 4) for i in range(5)],
        "scalings": [process.scalings(s) for s in levels],
        "time": [process.time(s) for s in levels],
        "alpha": [process.alpha(s) for s in levels],
        "prior": process.prior(noise, levels[-1]).tolist(),
        "target": process.target(x0, noise, levels).tolist(),
    }
