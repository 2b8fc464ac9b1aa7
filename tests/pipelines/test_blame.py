"""NaN and infinity are blamed on the part that made them, at the step where they began."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ldmkit
from ldmkit.errors import RunError


class NanSampler(ldmkit.get("sampler", "euler")):  # type: ignore[misc]
    api = 1
    at: int = 2

    def steps(self, denoise: Any, x: Tensor, sigmas: Any, noise: Any) -> Iterator[Any]:
        for step in super().steps(denoise, x, sigmas, noise):
            yield replace(step, x=step.x * float("nan")) if step.index + 1 == self.at else step


class InsideSampler(ldmkit.get("sampler", "euler")):  # type: ignore[misc]
    """Asks for an estimate of what is not finite."""

    api = 1

    def steps(self, denoise: Any, x: Tensor, sigmas: Any, noise: Any) -> Iterator[Any]:
        return super().steps(lambda x, sigma: denoise(x / 0, sigma), x, sigmas, noise)  # type: ignore[no-any-return]


class NanGuidance(ldmkit.get("guidance", "cfg")):  # type: ignore[misc]
    api = 1
    below: float = 5.0

    def __call__(self, evaluate: Any, x: Tensor, sigma: float) -> Tensor:
        estimate: Tensor = super().__call__(evaluate, x, sigma)
        return estimate / 0 if sigma < self.below else estimate


GRID = [9.0, 6.0, 3.0, 1.0, 0.0]
MASKED = ldmkit.Start(np.zeros((8, 8, 3), np.uint8), 1.0, np.full((8, 8), 255, np.uint8))


@pytest.mark.parametrize("start", [None, MASKED])
@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"sampler": NanSampler(at=4)}, "sampler NanSampler at step 4 of 4"),
        ({"sampler": InsideSampler()}, "sampler InsideSampler at step 1 of 4"),
        ({"guidance": NanGuidance()}, "guidance NanGuidance at step 3 of 4"),
    ],
)
@pytest.mark.parametrize("every", [True, False])
def test_blame(
    class_pipe: ldmkit.Pipeline, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], where: str, start: Any,
    every: bool,
) -> None:  # fmt: skip
    if not every:  # as on CUDA, where only the last step is looked at
        monkeypatch.setattr(ldmkit.Pipeline, "device", property(lambda self: _Cuda("cpu")))
    with pytest.raises(RunError) as caught:
        class_pipe({"label": 3}, grid=GRID, start=start, **options)
    assert (caught.value.code, caught.value.where) == ("run.not-finite", where)


def test_a_single_bad_step_is_noticed_on_the_cpu(class_pipe: ldmkit.Pipeline) -> None:
    with pytest.raises(RunError) as caught:
        class_pipe({"label": 3}, grid=GRID, sampler=NanSampler())
    assert caught.value.where == "sampler NanSampler at step 2 of 4"


class _Cuda(str):
    type = "cuda"


def test_the_network_is_blamed_for_its_own(class_pipe: ldmkit.Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(x: Tensor, time: Tensor, context: Any, sigma: float) -> Tensor:
        return x / 0 if sigma < 5 else x

    prepared = class_pipe.prepare({"label": 3}, grid=GRID)
    monkeypatch.setattr(prepared.evaluate, "_network", forward)
    with pytest.raises(RunError) as caught:
        class_pipe.run(prepared)
    assert caught.value.where == "denoiser at step 3 of 4"
    assert torch.isfinite(prepared.x).all()
