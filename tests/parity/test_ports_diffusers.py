"""Ports where published adapters act, against diffusers' U-Net with the same weights in float64: T2I-Adapter, GLIGEN.

The oracle is diffusers' own network given the adapter's features, or with its own gated attention; ours gets the same
through taps. Tolerance 1e-10 of the largest value: the same function, in another order of sums.
"""

from __future__ import annotations

import re
from typing import Any

import diffusers
import pytest
import torch
from ldmkit_denoisers.unet import UNet
from test_unet_diffusers import SD_BLOCKS, SMALL, XL_BLOCKS, adopted, far, normal, seeded

from ldmkit import Frame, Tap, Tokens, attached

SD: dict[str, Any] = {**SMALL, **SD_BLOCKS, "attention_head_dim": 4}
XL: dict[str, Any] = {**SMALL, **XL_BLOCKS, "attention_head_dim": 4, "use_linear_projection": True}
NO_ATTENTION: dict[str, Any] = {**SD, "down_block_types": ("DownBlock2D",) * 3, "up_block_types": ("UpBlock2D",) * 3}
T2I: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "sd": (SD, ("down.0", "down.1", "down.2")),
    "sdxl": (XL, ("down.0.resample", "down.1", "down.2", "mid")),
    "no attention": (NO_ATTENTION, ("down.0.resample", "down.1.resample", "down.2")),
    "two levels only": (SD, ("down.0", "down.1")),
}
"""A network, and the ports at which its features act: diffusers adds after the downsampler of a level that has no
attention, and before it elsewhere; a fourth feature of the deepest map's size goes to the middle."""


class Adds:
    """A tap that adds a feature."""

    def __init__(self, feature: torch.Tensor):
        self.feature = feature

    def __call__(self, value: torch.Tensor, frame: Frame) -> torch.Tensor:
        assert value.shape == self.feature.shape
        return value + self.feature


@pytest.mark.parametrize("name", T2I)
def test_t2i_adapter_features(name: str) -> None:
    options, ports = T2I[name]
    oracle = seeded("UNet2DConditionModel", options)
    ours, _ = adopted(oracle)
    x, t, tokens = normal(2, 4, 8, 12), torch.tensor([3.0, 871.0], dtype=torch.float64), normal(2, 5, 24, seed=3)
    context = ours.prepare({"context": Tokens(tokens)})
    shapes: dict[str, Any] = {}

    def seen(port: str) -> Tap:
        def tap(value: torch.Tensor, frame: Frame) -> torch.Tensor:
            shapes[port] = value.shape
            return value

        return tap

    with torch.no_grad():
        with attached(ours.ports, {port: seen(port) for port in ports}):
            plain = ours(x, t, context)
        features = [normal(*shapes[port], seed=i + 10) for i, port in enumerate(ports)]
        given = [feature.clone() for feature in features]
        want = oracle(x, t, tokens, down_intrablock_additional_residuals=given).sample
        with attached(ours.ports, {port: Adds(f) for port, f in zip(ports, features, strict=True)}):
            got = ours(x, t, context)
        assert far(got, want) <= 1e-10
        assert far(plain, want) > 1e-3
        assert torch.equal(ours(x, t, context), plain)


def their_block(theirs: Any, port: str) -> Any:
    """diffusers' transformer block for `block.<path>` of ours."""
    numbers = [int(number) for number in re.findall(r"\d+", port)]
    if port.startswith("block.mid"):
        return theirs.mid_block.attentions[0].transformer_blocks[numbers[0]]
    level, place, block = numbers
    blocks = theirs.down_blocks if port.startswith("block.down") else theirs.up_blocks[::-1]
    return blocks[level].attentions[place].transformer_blocks[block]


class Gated:
    """A tap that runs diffusers' own gated attention on the residual stream."""

    def __init__(self, fuser: Any, objects: torch.Tensor):
        self.fuser, self.objects = fuser, objects

    def __call__(self, value: torch.Tensor, frame: Frame) -> torch.Tensor:
        return self.fuser(value, self.objects)  # type: ignore[no-any-return]


@pytest.mark.parametrize("options", [SD, {**XL, "transformer_layers_per_block": (1, 2, 2)}], ids=["sd", "sdxl"])
def test_gligen_gated_attention(options: dict[str, Any]) -> None:
    plain = seeded("UNet2DConditionModel", options)
    gated: Any = seeded("UNet2DConditionModel", {**options, "attention_type": "gated"})
    missing = gated.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys and all("fuser" in k or "position_net" in k for k in missing.missing_keys)
    ours, _ = adopted(plain)
    x, t, tokens = normal(2, 4, 8, 12), torch.tensor([3.0, 871.0], dtype=torch.float64), normal(2, 5, 24, seed=3)
    boxes = {
        "boxes": torch.rand(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4)),
        "positive_embeddings": normal(2, 3, 24, seed=6),
        "masks": torch.tensor([[1.0, 1, 0], [1, 0, 0]], dtype=torch.float64),
    }
    with torch.no_grad():
        want = gated(x, t, tokens, cross_attention_kwargs={"gligen": boxes}).sample
        objects = gated.position_net(**boxes)
        taps = {p: Gated(their_block(gated, p).fuser, objects) for p in ours.ports if p.startswith("block.")}
        count = sum(isinstance(m, diffusers.models.attention.GatedSelfAttentionDense) for m in gated.modules())
        assert len(taps) == count
        context = ours.prepare({"context": Tokens(tokens)})
        before = ours(x, t, context)
        with attached(ours.ports, taps):
            got = ours(x, t, context)
        assert far(got, want) <= 1e-10 and far(before, want) > 1e-3
        assert torch.equal(ours(x, t, context), before)


def test_ports_of_the_levels_hold_no_weights() -> None:
    ours = UNet(
        {"channels": 3, "widths": (8, 16), "blocks": 1, "norm_groups": 4, "heads": 2, "attention": ("none", "none")}
    )
    assert {name for name in ours.ports if name.startswith("down")} == {
        "down.0",
        "down.0.0",
        "down.0.resample",
        "down.1",
        "down.1.0",
    }
    assert not [key for key in ours.state_dict() if "port" in key]
