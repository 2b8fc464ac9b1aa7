"""What a sampler costs beside the network: microseconds a step, ours, diffusers' and the bare tensor arithmetic.

python benchmarks/sampler_overhead.py [--rounds 40] [--steps 50]

The network returns one fixed tensor. Every round runs all of them one after the other in this process, one torch
thread; medians over rounds of the thread's own time, which a busy machine does not stretch. The grid is not counted on
either side (diffusers: set_timesteps); our coefficients, which are made at the start of a run, are. "floor" is the
least arithmetic we know for the method, on fixed coefficients.
Samplers that draw noise are measured with the noise at hand and with each library drawing its own; drawing is
torch.randn on both sides, and the last column leaves its time out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from common import write
from ldmkit_processes.discrete import Discrete
from ldmkit_samplers.ddim import DDIM
from ldmkit_samplers.ddpm import DDPM
from ldmkit_samplers.dpmpp_2m import DPMpp2M
from ldmkit_samplers.dpmpp_2m_sde import DPMpp2MSDE
from ldmkit_samplers.euler import Euler
from ldmkit_samplers.euler_ancestral import EulerAncestral
from ldmkit_samplers.grids.timesteps import Leading
from ldmkit_samplers.heun import Heun
from ldmkit_samplers.plms import PLMS
from ldmkit_samplers.unipc import UniPC
from torch import Tensor

from ldmkit import Noise, Sampler

Floor = Callable[[Tensor, Tensor, Tensor], Tensor]
SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPES = ((1, 4, 64, 64), (1, 4, 16, 16))


@dataclass(frozen=True)
class Case:
    """`floor(x, x0, n)` is the arithmetic of one step on fixed coefficients; `calls`: network calls a step."""

    name: str
    ours: Sampler
    theirs: str
    settings: dict[str, Any]
    floor: Floor
    noisy: bool = False
    calls: int = 1


def lerp(x: Tensor, x0: Tensor, n: Tensor) -> Tensor:
    return torch.lerp(x0, x, 0.9)


def lerp_noise(x: Tensor, x0: Tensor, n: Tensor) -> Tensor:
    return torch.lerp(x0, x, 0.9).add_(n, alpha=0.1)


def two_lerps(x: Tensor, x0: Tensor, n: Tensor) -> Tensor:
    return torch.lerp(torch.lerp(n, x0, 1.5), x, 0.9)


def two_lerps_noise(x: Tensor, x0: Tensor, n: Tensor) -> Tensor:
    return two_lerps(x, x0, n).add_(n, alpha=0.1)


def heun(x: Tensor, x0: Tensor, n: Tensor) -> Tensor:
    ahead = torch.lerp(x0, x, 0.9)
    return torch.lerp(x, torch.lerp(x0, ahead, 0.9), 0.5)


def plms(x: Tensor, x0: Tensor, n: Tensor) -> Tensor:
    slope = x - x0
    return x.add(slope, alpha=0.1).add_(n, alpha=0.1).add_(n, alpha=0.1).add_(n, alpha=0.1)


def unipc(x: Tensor, x0: Tensor, n: Tensor) -> Tensor:
    change = x0 - n
    corrected = x.add(change, alpha=0.1).add_(n, alpha=0.1)
    return torch.lerp(x0, corrected, 0.9).add_(change, alpha=0.1)


CASES = [
    Case("ddim", DDIM(), "DDIMScheduler", {"clip_sample": False}, lerp),
    Case("euler", Euler(), "EulerDiscreteScheduler", {}, lerp),
    Case("heun", Heun(), "HeunDiscreteScheduler", {}, heun, calls=2),
    Case("plms", PLMS(), "PNDMScheduler", {"skip_prk_steps": True}, plms),
    Case("dpmpp-2m", DPMpp2M(), "DPMSolverMultistepScheduler", {}, two_lerps),
    Case("unipc", UniPC(), "UniPCMultistepScheduler", {}, unipc),
    Case("ddpm", DDPM(), "DDPMScheduler", {"clip_sample": False}, lerp_noise, True),
    Case("euler-ancestral", EulerAncestral(), "EulerAncestralDiscreteScheduler", {}, lerp_noise, True),
    Case(
        "dpmpp-2m-sde",
        DPMpp2MSDE(),
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++"},
        two_lerps_noise,
        True,
    ),
]


def ours(case: Case, shape: tuple[int, ...], steps: int, own_noise: bool) -> Callable[[], None]:
    sigmas = Leading(offset=1).sigmas(Discrete(), steps)
    x, x0, n = torch.randn(shape), torch.randn(shape), torch.randn(shape)
    drawn = Noise([0] * shape[0], shape[1:])

    def run() -> None:
        for _ in case.ours.steps(lambda x, sigma: x0, x, sigmas, drawn if own_noise else lambda i: n):
            pass

    return run


def theirs(case: Case, shape: tuple[int, ...], steps: int) -> Callable[[], None]:
    settings = {**SD, **case.settings, "timestep_spacing": "leading", "steps_offset": 1}
    scheduler = getattr(diffusers, case.theirs)(**settings)
    x, x0, generator = torch.randn(shape), torch.randn(shape), torch.Generator().manual_seed(0)
    extra = {"generator": generator} if case.noisy else {}
    scheduler.set_timesteps(steps)
    timesteps = list(scheduler.timesteps)

    def run() -> None:
        z = x
        for t in timesteps:
            scheduler.scale_model_input(z, t)
            z = scheduler.step(x0, t, z, **extra, return_dict=False)[0]

    def fresh() -> None:
        scheduler.set_timesteps(steps)

    run.prepare = fresh  # type: ignore[attr-defined]
    return run


def bare(case: Case, shape: tuple[int, ...], steps: int) -> Callable[[], None]:
    x, x0, n = torch.randn(shape), torch.randn(shape), torch.randn(shape)

    def run() -> None:
        z = x
        for _ in range(steps):
            z = case.floor(z, x0, n)

    return run


def draws(shape: tuple[int, ...], steps: int) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        for _ in range(steps):
            torch.randn(shape, generator=generator)

    return run


def medians(runs: dict[str, Callable[[], None]], steps: int, rounds: int) -> dict[str, float]:
    """Microseconds a step, the runs taking turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 3):
        for name, run in runs.items():
            getattr(run, "prepare", lambda: None)()
            start = time.thread_time()
            run()
            if turn >= 3:
                times[name].append((time.thread_time() - start) / steps * 1e6)
    return {name: round(statistics.median(found), 2) for name, found in times.items()}


def measure(case: Case, shape: tuple[int, ...], steps: int, rounds: int) -> dict[str, Any]:
    runs = {"ours": ours(case, shape, steps, False), "diffusers": theirs(case, shape, steps)}
    runs["floor"] = bare(case, shape, steps)
    if case.noisy:
        runs["ours_drawing"] = ours(case, shape, steps, True)
        runs["randn"] = draws(shape, steps)
    with torch.no_grad():
        us = medians(runs, steps, rounds)
    return {
        "sampler": case.name,
        "shape": list(shape),
        "us_per_step": us,
        "of_floor": round(us["ours"] / us["floor"], 2),
        "of_diffusers": round(us.get("ours_drawing", us["ours"]) / us["diffusers"], 3),
        "of_diffusers_without_randn": round(us["ours"] / (us["diffusers"] - us.get("randn", 0)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(case, shape, args.steps, args.rounds) for shape in SHAPES for case in CASES]
    print("| sampler | shape | ours | drawing noise | diffusers | floor | of floor | of diffusers | without randn |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        us, shape = row["us_per_step"], "x".join(map(str, row["shape"]))
        cells = [row["sampler"], shape, us["ours"], us.get("ours_drawing", ""), us["diffusers"], us["floor"]]
        cells += [row["of_floor"], row["of_diffusers"], row["of_diffusers_without_randn"]]
        print("| " + " | ".join(map(str, cells)) + " |")
    write("sampler_overhead", rows, steps=args.steps)


if __name__ == "__main__":
    main()
