"""A part that draws from a global generator in a run is named: its pictures cannot be drawn again from their seeds."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import tiny_parts
import torch
from torch import Tensor

import ldmkit
from ldmkit.errors import DrawingWarning

L = {"label": 1}


class Forgetful(ldmkit.Sampler):
    """DDIM with noise of its own."""

    def steps(
        self, denoise: ldmkit.Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[ldmkit.Step]:
        count = len(sigmas) - 1
        for i in range(count):
            x0 = denoise(x, sigmas[i])
            x = x0 + (sigmas[i + 1] / sigmas[i]) * (x - x0) + 1e-3 * torch.randn_like(x)
            yield ldmkit.Step(i, count, sigmas[i], sigmas[i + 1], x, x0)


DRAWS: dict[str, Callable[[], Any]] = {
    "torch": lambda: torch.rand(1),
    "numpy.random": lambda: np.random.rand(),
    "random": random.random,
}


def said(call: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    found = [str(w.message) for w in caught if issubclass(w.category, DrawingWarning)]
    return [one for one in found if "generator" in one]


def test_a_sampler() -> None:
    pipe = tiny_parts.class_pipeline()
    (found,) = said(lambda: pipe(L, sampler=Forgetful(), steps=5))
    assert "sampler" in found and "Forgetful" in found and "generator of torch " in found
    assert "seed" in found and "denoiser" not in found


@pytest.mark.parametrize("name", DRAWS)
def test_a_network(name: str) -> None:
    pipe = tiny_parts.class_pipeline()

    def draw(*_: Any) -> None:
        DRAWS[name]()

    pipe.denoiser.register_forward_hook(draw)
    (found,) = said(lambda: pipe(L, steps=3))
    assert "denoiser 'unet'" in found and f"generator of {name} " in found


@pytest.mark.parametrize("name", DRAWS)
def test_a_conditioner(name: str) -> None:
    pipe = tiny_parts.class_pipeline()
    label = pipe.conditioners["label"]
    wrapped = label.forward

    def forward(*given: Any, **named: Any) -> Any:
        DRAWS[name]()
        return wrapped(*given, **named)

    label.forward = forward
    (found,) = said(lambda: pipe(L, steps=3))
    assert "conditioner 'label'" in found and name in found


@pytest.mark.parametrize("name", DRAWS)
def test_a_codec(name: str) -> None:
    """On both ways."""
    pipe = tiny_parts.class_pipeline("kl")
    for side in (pipe.codec.encoder, pipe.codec.decoder):
        side.conv_out.register_forward_hook(lambda *_: draw_once(name))
    start = {"image": torch.zeros(3, 16, 16), "strength": 0.5}
    assert ["codec 'kl'" in one for one in said(lambda: pipe(L, steps=2, start=start))] == [True, True]


def draw_once(name: str) -> None:
    DRAWS[name]()


def test_a_callback_may_draw_and_so_may_who_reads_a_stream() -> None:
    pipe = tiny_parts.class_pipeline()
    assert not said(lambda: pipe(L, steps=3, on_step=lambda step: torch.rand(1)))
    assert not said(lambda: [torch.rand(1) for _ in pipe.stream(L, steps=3)])


@pytest.mark.parametrize("sampler", ldmkit.components("sampler"))
def test_ours_draw_from_none(sampler: str) -> None:
    pipe = tiny_parts.class_pipeline()
    assert not said(lambda: pipe(L, sampler=sampler, steps=3))


def test_a_look_at_the_generators_changes_nothing() -> None:
    """Also where one more call tells who drew."""
    pipe = tiny_parts.class_pipeline()
    torch.manual_seed(3)
    found = pipe(L, sampler=Forgetful(), steps=3).images
    after = torch.rand(1)
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = pipe(L, sampler=Forgetful(), steps=3).images
    assert torch.equal(found, again) and torch.equal(torch.rand(1), after)
