"""Norms and attention of a tiled codec are those of the whole picture: no tile has a tone of its own."""

from __future__ import annotations

import pytest
import torch
from ldmkit_codecs.tiled import TiledCodec
from torch import Tensor

import ldmkit


@pytest.fixture(scope="module")
def latents() -> Tensor:
    return ldmkit.load("miniworld")({"label": "lake"}, steps=2, size=(192, 256)).latents


@pytest.mark.parametrize("budget", [14, 16, 24])
def test_the_bundled_codec_keeps_its_tone(latents: Tensor, budget: float) -> None:
    """Of values in [0, 1]: mean 0.002 and max 0.02, a quarter and five steps of an 8-bit picture's 256."""
    codec = ldmkit.load("miniworld").codec
    tiled = TiledCodec.wrap(codec, budget_mib=budget)
    with torch.no_grad():
        whole, tiles = codec.decode(latents), tiled.decode(latents)
    assert tiled.plan(192, 256).count > 1
    error = (whole - tiles).abs() / 2
    assert error.mean() <= 0.002 and error.max() <= 0.02


def test_gradients_are_those_of_the_whole(latents: Tensor) -> None:
    codec = ldmkit.load("miniworld").codec
    tiled = TiledCodec.wrap(codec, budget_mib=16)
    found = []
    for one in (codec, tiled):
        x = latents.clone().requires_grad_()
        found.append(torch.autograd.grad(one.decode(x).square().mean(), x)[0])
    assert torch.equal(*found)
