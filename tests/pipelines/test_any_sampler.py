"""Every sampler that is installed, on a whole pipeline: with every grid, with few steps, with the calls it declares."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import ldmkit

CLASSES = {"label": 1}
FIXED = ("explicit", "deepfloyd")
"""Grids with a number of steps of their own."""


@pytest.mark.parametrize("grid", [g for g in ldmkit.components("grid") if g not in FIXED])
@pytest.mark.parametrize("sampler", ldmkit.components("sampler"))
def test_any_sampler_with_any_grid(class_pipe: ldmkit.Pipeline, sampler: str, grid: str) -> None:
    out = class_pipe(CLASSES, sampler=sampler, grid=grid, steps=5, guidance=1.5)
    assert out.images.isfinite().all() and out.images.std() > 0.01


@pytest.mark.parametrize("sampler", ldmkit.components("sampler"))
@pytest.mark.parametrize("steps", [1, 2])
def test_any_sampler_with_few_steps(class_pipe: ldmkit.Pipeline, sampler: str, steps: int) -> None:
    count = sum(1 for _ in class_pipe.stream(CLASSES, sampler=sampler, steps=steps, grid="trailing"))
    assert count == steps


@pytest.mark.parametrize("sampler", ldmkit.components("sampler"))
def test_evaluations_are_known_before_the_run(
    class_pipe: ldmkit.Pipeline, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = class_pipe.prepare(CLASSES, sampler=sampler, steps=6)
    calls = 0
    inner = prepared.evaluate.denoiser.forward

    def counting(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return inner(*arguments)

    monkeypatch.setattr(prepared.evaluate.denoiser, "forward", counting)
    for _ in prepared.steps():
        pass
    assert calls == prepared.evaluations
