"""Noise levels that are not those of the model: other programs' lists are refused, or said, before they are drawn."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import tiny_parts
import torch

import ldmkit
from ldmkit.errors import DrawingWarning
from ldmkit.run.levels import check_range

AYS_TIMESTEPS = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24, 0]
AYS_SIGMAS = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
"""Sabour et al. 2024, for Stable Diffusion 1.5, as diffusers' `AysSchedules` have them."""


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    """Of Stable Diffusion's process: sigma 0.0292 to 14.61."""
    return tiny_parts.class_pipeline()


@pytest.fixture(scope="module")
def flow() -> ldmkit.Pipeline:
    own = tiny_parts.class_pipeline()
    return ldmkit.Pipeline.of(
        codec=own.codec,
        denoiser=own.denoiser,
        process=ldmkit.get("process", "flow")(),
        conditioners=own.conditioners,
        defaults={"size": (8, 8), "grid": {"type": "flow-shift"}, "sampler": {"type": "euler"}},
    )


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (AYS_TIMESTEPS, "at most 14.6146; 999, 850, 736 ... look like timesteps"),
        (AYS_TIMESTEPS[:-1], "look like timesteps"),
        ([700.0, 54.5, 15.886, 7.977, 4.248, 0.4, 0.03, 0], "noise level 700 .*at most 14.6146"),
        ([14.8, 3, 0], "noise level 14.8"),
        ({"type": "karras", "config": {"largest": 1000.0}}, "cannot go from 1000"),
    ],
)
def test_above_the_range(pipe: ldmkit.Pipeline, grid: Any, words: str) -> None:
    with pytest.raises(ldmkit.InputError, match=words) as error:
        pipe.prepare({"label": 1}, grid=grid)
    assert error.value.code == "input.grid-range"


@pytest.mark.parametrize(
    ("grid", "steps", "words"),
    [
        ([1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0], None, r"first noise level is 1, .*t / \(1 - t\)"),
        ([14.6, 6.5, 3.9, 2.7, 1.9, 1.4, 1.0], None, "last noise level is 1, so that much noise remains"),
        ([14.6, 6.5, 3.9, 0.06], None, "last noise level is 0.06"),
        ({"type": "exponential", "config": {"largest": 0.5}}, 10, "first noise level is 0.5"),
        ({"type": "karras", "config": {"smallest": 5.0}}, 10, "last of 10 steps goes directly from noise level 5 to 0"),
        ({"type": "leading"}, 1, "first noise level is 0.0291"),
    ],
)
def test_within_it_and_not_over_it(pipe: ldmkit.Pipeline, grid: Any, steps: int | None, words: str) -> None:
    with pytest.warns(DrawingWarning, match=words):
        pipe.prepare({"label": 1}, grid=grid, steps=steps)


@pytest.mark.parametrize(
    ("grid", "words"),
    [(AYS_TIMESTEPS, "999, 850, 736 ... look like timesteps"), ([1.0, 0.75, 0.5, 0.25, 0], "first noise level is 1")],
)
def test_lists_of_diffusers_for_a_flow(flow: ldmkit.Pipeline, grid: Any, words: str) -> None:
    with pytest.warns(DrawingWarning, match=words):
        flow.prepare({"label": 1}, grid=grid)


def test_other_programs_levels_that_are_ours(pipe: ldmkit.Pipeline, flow: ldmkit.Pipeline) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for grid in (AYS_SIGMAS, [*AYS_SIGMAS, 0], [14.7, 4, 1, 0], [14, 2, 0]):
            pipe.prepare({"label": 1}, grid=grid)
        flow.prepare({"label": 1}, grid=[t / (1 - t) for t in (0.999, 0.75, 0.5, 0.25, 0.1, 0)])
        for shift in (1.0, 3.0, 12.0):
            for steps in (1, 2, 4, 5, 8, 20, 50):
                flow.prepare({"label": 1}, grid={"type": "flow-shift", "config": {"shift": shift}}, steps=steps)
        for name in ("karras", "exponential", "log-snr", "trailing", "linspace"):
            for steps in (2, 4, 5, 8, 20, 50):
                pipe.prepare({"label": 1}, grid=name, steps=steps)
        for name in ("leading", "ldm-ddim"):
            for steps in (4, 5, 8, 20, 50):
                pipe.prepare({"label": 1}, grid=name, steps=steps)


def test_a_start_may_begin_low_but_not_end_high(pipe: ldmkit.Pipeline) -> None:
    picture = ldmkit.get("codec", "identity")().decode(torch.zeros(1, 3, 8, 8))[0]
    start = {"image": picture, "strength": 1.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.prepare({"label": 1}, grid=[0.8, 0.4, 0], start=start)
    with pytest.warns(DrawingWarning, match="last noise level is 0.4"):
        pipe.prepare({"label": 1}, grid=[0.8, 0.4], start=start)
    with pytest.raises(ldmkit.InputError, match="grid-range"):
        pipe.prepare({"label": 1}, grid=[20, 0.4, 0], start={**start, "strength": 0.5})


def test_every_published_schedule_is_within_its_own() -> None:
    """Whatever the process: what it trains on, from its largest to its smallest, draws no word."""
    for name in ("discrete", "flow", "edm"):
        process = ldmkit.get("process", name)()
        largest, smallest = math.log(process.sigma_max), math.log(process.sigma_min)
        levels = [math.exp(largest + i / 20 * (smallest - largest)) for i in range(21)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_range(levels, process, started=False)
            check_range([*levels, 0.0], process, started=False)
