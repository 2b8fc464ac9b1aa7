"""ControlNet-XS against diffusers' UNetControlNetXSModel with the same random weights in float64.

Tolerance 1e-10 of the largest value: the same function, in another order of sums. Whatever the U-Net's config says, the
oracle builds its copy of it with an epsilon of 1e-6 in the blocks and of 1e-5 in the last norm; ours does here too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from test_unet_diffusers import ADDED, SMALL, adopted, far, normal, seeded

import ldmkit
from ldmkit import Plane, Tokens, Vector, attached
from ldmkit.run.context import prepared_context

SD: dict[str, Any] = {
    **SMALL, "norm_eps": 1e-6, "attention_head_dim": 4, "use_linear_projection": True,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
XL: dict[str, Any] = {
    **SMALL, **ADDED, "norm_eps": 1e-6, "attention_head_dim": (2, 4, 8), "use_linear_projection": True,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
}  # fmt: skip
HINTS: dict[str, Any] = {"conditioning_embedding_out_channels": (4, 8)}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sd2": (SD, {"size_ratio": 0.5, **HINTS}),
    "conv projections": ({**SD, "use_linear_projection": False}, {"size_ratio": 0.25, **HINTS}),
    "own widths": (SD, {"block_out_channels": [4, 6, 12], "num_attention_heads": [1, 2, 3], **HINTS}),
    "xl": (XL, {"size_ratio": 0.5, **HINTS}),
    "time": (SD, {"size_ratio": 0.5, "learn_time_embedding": True, **HINTS}),
    "time, mixed": (XL, {"size_ratio": 0.5, "learn_time_embedding": True, "time_embedding_mix": 0.3, **HINTS}),
    "bgr": (SD, {"size_ratio": 0.5, "conditioning_channel_order": "bgr", **HINTS}),
    "grey hint": (SD, {"size_ratio": 0.5, "conditioning_channels": 1, **HINTS}),
}


@pytest.mark.parametrize("scale", [1.0, 0.7])
@pytest.mark.parametrize("size", [(8, 12), (12, 4)])
@pytest.mark.parametrize("name", CASES)
def test_the_network(name: str, size: tuple[int, int], scale: float, tmp_path: Path) -> None:
    options, own = CASES[name]
    base: Any = seeded("UNet2DConditionModel", options)
    adapter = diffusers.ControlNetXSAdapter.from_unet(base, **own).double().eval()
    generator = torch.Generator().manual_seed(5)
    for parameter in adapter.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = noise * 0.2 + (1.0 if parameter.ndim == 1 else 0.0)
    for parameter in (*base.parameters(), *adapter.parameters()):  # the oracle's copy of both is made in float32
        parameter.data = parameter.data.float().double()
    adapter.save_pretrained(tmp_path)
    oracle = diffusers.UNetControlNetXSModel.from_unet(base, adapter).double().eval()
    control: Any = ldmkit.load_adapter(tmp_path).tuned(scale=scale)
    ours, config = adopted(base)
    ours.norm_out.eps = 1e-5
    x, tokens, t = normal(2, 4, *size), normal(2, 5, 24, seed=3), torch.tensor([3.0, 871.0], dtype=torch.float64)
    hint = torch.rand(2, adapter.config.conditioning_channels, 2 * size[0], 2 * size[1], dtype=torch.float64)
    signals: dict[str, Any] = {"context": Tokens(tokens), "edges.hint": Plane(hint)}
    more: dict[str, Any] = {}
    if config["addition_embed_type"]:
        pooled, sizes = normal(2, 10, seed=4), torch.arange(12.0, dtype=torch.float64).view(2, 6) * 50
        more["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
        signals["vector"] = Vector(torch.cat([pooled, base.add_time_proj(sizes.flatten()).view(2, -1).double()], 1))
    with torch.no_grad():
        want = oracle(x, t, tokens, hint, conditioning_scale=scale, **more).sample
        off = oracle(x, t, tokens, hint, apply_control=False, **more).sample
        plain = ours(x, t, ours.prepare(signals))
        with attached(ours.ports, control.taps("edges")):
            got = ours(x, t, prepared_context(ours, {"edges": control}, signals, {}, None))
            one = {"edges.hint": torch.tensor([True, False])}
            half = ours(x, t, prepared_context(ours, {"edges": control}, signals, one, None))
            assert torch.equal(ours(x, t, prepared_context(ours, {}, signals, {}, None)), plain)
        assert far(plain, off) <= 1e-10 < far(plain, want)
        assert far(got, want) <= 1e-10
        assert far(half[:1], want[:1]) <= 1e-10 and far(half[1:], plain[1:]) <= 1e-10
        assert torch.equal(ours(x, t, ours.prepare(signals)), plain)
