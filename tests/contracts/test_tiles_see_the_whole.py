"""A codec within a budget gives what it gives whole: no tile has a tone of its own, and no seam shows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ldmkit_codecs.kl import KLCodec
from ldmkit_codecs.stretches import LayerPlan, tiles
from ldmkit_codecs.tiled import MIB, TiledCodec
from ldmkit_codecs.tiny import TinyCodec
from ldmkit_codecs.vq import VQCodec
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import ldmkit
from ldmkit import Codec
from ldmkit.errors import InputError

WIDE = {"widths": [16, 32, 32], "norm_groups": 8}
CODECS: dict[str, tuple[type[Codec], dict[str, Any]]] = {
    "kl": (KLCodec, {**WIDE, "blocks": 2, "scale": 0.2}),
    "kl plain": (KLCodec, {**WIDE, "blocks": 1, "resample_conv": False, "embed_dim": 2, "tanh_out": True}),
    "vq": (VQCodec, {**WIDE, "blocks": 1, "attention_levels": [2], "codebook_size": 64}),
    "vq linear": (VQCodec, {**WIDE, "blocks": 1, "mid_attention": "linear", "codebook_size": 64}),
}


def make(name: str) -> Codec:
    if name == "bundled":
        return ldmkit.load("miniworld").codec
    kind, config = CODECS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config).eval().requires_grad_(False)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("budget", "overlap"), [(2.5, 0), (6, 64)])
@pytest.mark.parametrize("name", [*CODECS, "bundled"])
def test_tiles_are_the_whole(name: str, budget: float, overlap: int) -> None:
    """To float32's rounding, which the norms' other order of summing brings: 1e-5 of values in [0, 1]."""
    codec = make(name)
    tiled = TiledCodec.wrap(codec, budget_mib=budget, overlap=overlap)
    latents = draw(2, codec.channels, 23, 37)
    height, width = 23 * codec.factor, 37 * codec.factor
    plan = tiled.plan(height, width)
    assert isinstance(plan, LayerPlan) and plan.count > 1
    with torch.no_grad():
        whole, found = codec.decode(latents), tiled.decode(latents)
        assert (whole - found).abs().max() / 2 <= 1e-5
        images = whole.clamp(-1, 1)[..., : height - height % codec.multiple, : width - width % codec.multiple]
        expected = codec.encode(images)
        assert (expected - tiled.encode(images)).abs().max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("direction", ["decode", "encode"])
@pytest.mark.parametrize("name", ["kl", "vq"])
def test_the_plan_keeps_to_the_budget(name: str, direction: str) -> None:
    """What torch allocates at the peak, the result's own memory left out, by torch's record of it."""
    codec, side, budget = make(name), 192, 8
    tiled = TiledCodec.wrap(codec, budget_mib=budget)
    assert tiled.plan(side, side, direction).count > 1  # type: ignore[arg-type]
    given = draw(1, codec.channels, side // 4, side // 4) if direction == "decode" else draw(1, 3, side, side)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = getattr(tiled, direction)(given)
    held, most = 0, 0
    for event in seen.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    assert budget * MIB / 2 < most <= budget * MIB + result.nbytes


def test_more_memory_means_less_work() -> None:
    codec = make("kl")
    work = []
    for budget in (3, 4, 8, 16):
        plan = TiledCodec.wrap(codec, budget_mib=budget).plan(184, 296)
        assert isinstance(plan, LayerPlan)
        work.append(plan.repeated)
    assert work == sorted(work, reverse=True) and work[-1] < 1.5 < work[0]


def test_every_pixel_is_owned_once() -> None:
    plan = TiledCodec.wrap(make("kl"), budget_mib=3).plan(92, 148)
    assert isinstance(plan, LayerPlan)
    for stretch in plan.stretches:
        seen = torch.zeros(92, 148)
        for rows, columns, owned_rows, owned_columns in tiles(plan.size, stretch):
            seen[slice(*owned_rows), slice(*owned_columns)] += 1
            assert rows[0] == max(0, owned_rows[0] - stretch.margin)
            assert columns[1] == min(148, owned_columns[1] + stretch.margin)
        assert bool((seen == 1).all())


def test_too_small_a_budget_names_one_that_is_enough() -> None:
    codec = make("vq")
    with pytest.raises(InputError, match=r"input\.budget") as caught:
        TiledCodec.wrap(codec, budget_mib=0.05).plan(96, 96)
    enough = float(str(caught.value.fits).split()[0])
    assert TiledCodec.wrap(codec, budget_mib=enough).plan(96, 96).count > 1


def test_norms_of_other_codecs_see_the_whole() -> None:
    """The pooled branch of tiny codecs is normed; an overlap beyond what the layers see makes the rest exact."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec = TinyCodec({"width": 8, "encoder_blocks": [0, 1], "decoder_blocks": [1, 0], "decoder_pool": True}).eval()
    tiled = TiledCodec.wrap(codec, budget_mib=2, overlap=48)
    latents = draw(1, 4, 128, 160)
    assert tiled.plan(256, 320).count > 1
    with torch.no_grad():
        torch.testing.assert_close(tiled.decode(latents), codec.decode(latents), atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_the_whole() -> None:
    codec = make("bundled")
    latents = draw(1, codec.channels, 48, 64)
    tiled = TiledCodec.wrap(codec, budget_mib=16)
    found = []
    for one in (codec, tiled):
        x = latents.clone().requires_grad_()
        found.append(torch.autograd.grad(one.decode(x).square().mean(), x)[0])
    assert torch.equal(*found)
