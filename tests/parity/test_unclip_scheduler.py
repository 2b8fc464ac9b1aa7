"""UnCLIP's scheduler: its grid, its steps in both variances, its config; and that DDPM makes the same steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import diffusers
import pytest
import torch
from ldmkit_checkpoints.diffusers.scheduler import read_scheduler
from ldmkit_checkpoints.diffusers.scheduler_fields import UNCLIP_CLASS
from ldmkit_samplers.grids.timesteps import Linspace
from torch import Tensor
from unclip_tables import in_double

import ldmkit
from ldmkit import Denoised, Process, build_value

SHAPE = (2, 3)
FLOAT64 = 1e-10
"""Of the largest value: both sides in float64, the oracle's tables computed again in it; 1e-14 is seen."""


def config(**changes: Any) -> dict[str, Any]:
    return {"_class_name": "UnCLIPScheduler", **changes}


def output(z: Tensor, t: float, channels: int) -> Tensor:
    """What a network might return, in the process's own scale."""
    wide = torch.cat([z, z.flip(1)], dim=1)[:, :channels] if channels > z.shape[1] else z
    return (wide * (1 + t / 500)).sin() * 1.3


class Network:
    """`denoise` with an estimate of the variance, from `output` and a process."""

    def __init__(self, process: Process, learned: bool) -> None:
        self.process, self.learned = process, learned

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self.estimate(x, sigma).x0

    def estimate(self, x: Tensor, sigma: float, *needs: str) -> Denoised:
        skip, out, scale = self.process.scalings(sigma)
        width = x.shape[1]
        found = output(x * scale, self.process.time(sigma), 2 * width if self.learned else width)
        x0 = skip * x + out * found[:, :width]
        return Denoised(x0, variance=(found[:, width:] + 1) / 2 if self.learned else None)


def drawn(steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(steps + 1)]


def ours(fields: dict[str, Any], steps: int, noise: Sequence[Tensor]) -> Tensor:
    parts = read_scheduler(fields)
    process = build_value("process", parts.process)
    sampler, grid = build_value("sampler", parts.sampler), build_value("grid", parts.grid)
    sigmas = grid.sigmas(process, steps)
    assert len(sigmas) == steps + 1
    x = process.prior(noise[-1], sigmas[0])
    denoise = Network(process, parts.sampler.config["variance"] == "learned")
    for step in sampler.steps(denoise, x, sigmas, lambda i: noise[i]):
        x = step.x
    return x


def theirs(scheduler: Any, times: Sequence[int], noise: Sequence[Tensor], step: Callable[..., Tensor]) -> Tensor:
    z = noise[-1]
    learned = scheduler.variance_type == "learned_range" if hasattr(scheduler, "variance_type") else None
    for i, t in enumerate(times):
        later = times[i + 1] if i + 1 < len(times) else None
        wide = 2 * z.shape[1] if learned or scheduler.config.variance_type == "learned_range" else z.shape[1]
        z = step(output(z, float(t), wide), t, z, later, i)
    return z


FIELDS = {
    "variance_type": ("fixed_small_log", "learned_range"),
    "prediction_type": ("epsilon", "sample"),
    "clip_sample": (True, False),
    "clip_sample_range": (1.0, 5.0, 0.5),
}


@pytest.mark.parametrize("steps", [2, 4, 25])
def test_every_value_of_every_field_is_its_own_steps(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.schedulers import scheduling_unclip

    noise = drawn(steps)
    for values in itertools.product(*FIELDS.values()):
        fields = dict(zip(FIELDS, values, strict=True))
        scheduler = in_double(diffusers.UnCLIPScheduler(**fields))
        scheduler.set_timesteps(steps)

        def step(out: Tensor, t: int, z: Tensor, later: int | None, i: int, scheduler: Any = scheduler) -> Tensor:
            monkeypatch.setattr(scheduling_unclip, "randn_tensor", lambda *a, **k: noise[i])
            return scheduler.step(out, t, z, prev_timestep=later).prev_sample  # type: ignore[no-any-return]

        want = theirs(scheduler, scheduler.timesteps.tolist(), noise, step)
        got = ours(config(**fields), steps, noise)
        assert (got - want).abs().max() < FLOAT64 * max(1, want.abs().max()), fields


@pytest.mark.parametrize("variance", ["fixed_small", "learned_range"])
def test_ddpm_makes_the_same_steps_on_the_same_timesteps(variance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' own advice. Its step derives the next timestep from the list that it was given."""
    from diffusers.schedulers import scheduling_ddpm

    steps, noise = 7, drawn(7)
    scheduler = in_double(
        diffusers.DDPMScheduler(
            beta_schedule="squaredcos_cap_v2", variance_type=variance, clip_sample=True, clip_sample_range=5.0
        )
    )
    times = [round(i * 999 / 6) for i in range(7)][::-1]
    scheduler.set_timesteps(timesteps=times)

    def step(out: Tensor, t: int, z: Tensor, later: int | None, i: int) -> Tensor:
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *a, **k: noise[i])
        return scheduler.step(out, t, z).prev_sample  # type: ignore[no-any-return]

    want = theirs(scheduler, times, noise, step)
    own = "learned_range" if variance == "learned_range" else "fixed_small_log"
    got = ours(config(variance_type=own, clip_sample_range=5.0), steps, noise)
    assert (got - want).abs().max() < FLOAT64 * max(1, want.abs().max())


@pytest.mark.parametrize("total", [1000, 37])
def test_the_grid_has_both_ends_for_every_number_of_steps(total: int) -> None:
    scheduler = diffusers.UnCLIPScheduler(num_train_timesteps=total)
    for steps in range(2, total + 1):
        scheduler.set_timesteps(steps)
        assert Linspace().timesteps(total, steps) == [float(t) for t in scheduler.timesteps]


def test_a_single_step_starts_at_the_noisiest_timestep() -> None:
    """Theirs divides by zero."""
    with pytest.raises(ZeroDivisionError):
        diffusers.UnCLIPScheduler().set_timesteps(1)
    parts = read_scheduler(config(prediction_type="sample", clip_sample_range=5.0))
    process = build_value("process", parts.process)
    assert build_value("grid", parts.grid).sigmas(process, 1) == [process.sigma_of_time(999), 0.0]
    noise = drawn(1)
    got = ours(config(prediction_type="sample", clip_sample_range=5.0), 1, noise)
    a = 1 / math.sqrt(1 + process.sigma_of_time(999) ** 2)
    state = process.prior(noise[-1], process.sigma_of_time(999)) * a
    assert (got - output(state, 999.0, 3)).abs().max() < FLOAT64


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("variance_type", "fixed_large"),
        ("prediction_type", "v_prediction"),
        ("beta_schedule", "linear"),
        ("clip_sample_rang", 2.0),
    ],
)
def test_what_it_does_not_have_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ldmkit.LdmkitError) as caught:
        read_scheduler(config(**{field: value}))
    assert field in str(caught.value)


def test_fields_of_other_classes_have_no_effect() -> None:
    """As in diffusers, whose from_config leaves them unread."""
    plain = read_scheduler(config())
    assert read_scheduler(config(timestep_spacing="leading", steps_offset=1, trained_betas=None)) == plain
    known = {key for key in diffusers.UnCLIPScheduler().config if not key.startswith("_")}
    assert known == set(UNCLIP_CLASS.defaults)
