"""The noise levels of FLUX, Qwen-Image and Stable Diffusion 3, against diffusers' scheduler and pipelines."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_parts
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

import ldmkit
from ldmkit import Process

SIZES = ((16, 16), (32, 64), (128, 128), (256, 160))
"""Of latents: pictures of 128 to 2048 pixels with a codec of factor 8."""
STEPS = (1, 2, 4, 7, 28, 50)
TOLERANCE = 6 / 2**20
"""Of times in [0, 1]: equal steps start from t = 1 there, and here from the time that the shift, at most 6, brings to
the process's largest noise level of 2^20."""


def process() -> Process:
    made: Process = ldmkit.get("process", "flow")()
    return made


def times(name: str, steps: int, size: tuple[int, ...], **config: object) -> list[float]:
    grid = ldmkit.get("grid", name).of(config).at_size(size)
    return [level / (1 + level) for level in grid.sigmas(process(), steps)]


def visited(scheduler: FlowMatchEulerDiscreteScheduler) -> list[float]:
    return [float(sigma) for sigma in scheduler.sigmas]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("size", SIZES)
def test_flux(steps: int, size: tuple[int, int]) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    mu = calculate_shift((size[0] // 2) * (size[1] // 2))
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    assert times("flow-size-shift", steps, size) == pytest.approx(visited(scheduler), abs=TOLERANCE)


@pytest.mark.parametrize("steps", STEPS[1:])
@pytest.mark.parametrize("size", SIZES)
def test_qwen_image(steps: int, size: tuple[int, int]) -> None:
    line = {"base_seq_len": 256, "max_seq_len": 8192, "base_shift": 0.5, "max_shift": 0.9}
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02)
    mu = calculate_shift((size[0] // 2) * (size[1] // 2), *line.values())
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    ours = times("flow-size-shift", steps, size, full_tokens=8192, full_mu=0.9, terminal=0.02)
    assert ours == pytest.approx(visited(scheduler), abs=TOLERANCE)
    assert ours[-2] == pytest.approx(0.02, abs=TOLERANCE)


@pytest.mark.parametrize("steps", STEPS)
def test_linear_shift(steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="linear")
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=calculate_shift(1024))
    assert times("flow-size-shift", steps, (64, 64), curve="linear") == pytest.approx(visited(scheduler), abs=TOLERANCE)


@pytest.mark.parametrize("steps", STEPS)
def test_stable_diffusion_3(steps: int) -> None:
    """diffusers shifts the smallest time twice: once when the scheduler is made, and again when steps are set."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    smallest = 3 * 0.001 / (1 + 2 * 0.001)
    ours = times("flow-shift", steps, (64, 64), shift=3.0, t_last=smallest)
    assert ours == pytest.approx(visited(scheduler), abs=TOLERANCE)


def test_a_size_that_patches_do_not_divide_counts_what_is_padded() -> None:
    grid = ldmkit.get("grid", "flow-size-shift")()
    assert grid.at_size((15, 33)) == grid.at_size((16, 34)) != grid.at_size((16, 32))


def test_without_a_size_it_is_the_full_one() -> None:
    grid = ldmkit.get("grid", "flow-size-shift")()
    assert grid.shift == pytest.approx(np.exp(1.15)) == grid.at_size((128, 128)).shift


def test_the_run_visits_the_levels_of_its_size() -> None:
    plain = tiny_parts.class_pipeline()
    pipe = ldmkit.Pipeline.of(
        codec=plain.codec, denoiser=plain.denoiser, process=process(), conditioners=plain.conditioners
    )
    small, large = (pipe.prepare({}, size=side, steps=4, grid="flow-size-shift") for side in (16, 64))
    assert small.sigmas[1] < large.sigmas[1] and torch.isfinite(small.x).all()
    again = small.again(sampler=small.request.sampler, grid=small.request.grid, steps=4)
    assert again.sigmas == small.sigmas
