"""IP-Adapters: single forwards in float64 against diffusers' own modules.

Tolerance: 1e-10 of the largest value in float64 where the arithmetic is the same.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_adapters.ip_adapter.adapter import IPAdapter
from torch import Tensor

import ldmkit
from ldmkit import Plane, Tokens, Vector
from ldmkit.contracts.ports import attached
from ldmkit.run.context import prepared_context

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))

import ip_files as made
import tiny_diffusers as tiny


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["plain", "plus", "full"])
@pytest.mark.parametrize("xl", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_forward(tmp_path: Path, kind: str, xl: bool, masked: bool) -> None:
    """One call of the network, two pictures, in float64: F with the adapter, and what the projection makes."""
    theirs = tiny.stable_diffusion_xl() if xl else tiny.stable_diffusion()
    ours = ldmkit.load(tiny.saved(theirs, tmp_path / "base")).to(dtype=torch.float64)
    halves = made.adapter(theirs.unet, kind)
    length = {} if kind == "plain" else {"length": made.TOKENS}
    pipe = ours.with_adapter_file(made.saved(halves, tmp_path / "ip.bin"), scale=0.7, **length)
    unet = theirs.unet.double()
    unet._load_ip_adapter_weights([halves], low_cpu_mem_usage=False)
    for processor in unet.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [0.7]
    dim = unet.config.cross_attention_dim
    x, context, t = draw(2, 4, 16, 12), draw(2, 7, dim, seed=1), torch.tensor([10.0, 700.0], dtype=torch.float64)
    own = (2, 1, made.SOURCE) if kind == "plain" else (2, made.TOKENS, made.WIDTH)
    images = torch.stack([draw(*own, seed=2), draw(*own, seed=3)])  # two rows, two pictures each
    added: dict[str, Any] = {"image_embeds": [images.flatten(2, 2) if kind != "plain" else images[:, :, 0]]}
    signals: dict[str, Any] = {"context": Tokens(context), "ip.image": Tokens(images.flatten(1, 2))}
    if xl:
        added |= {"text_embeds": draw(2, 32, seed=5), "time_ids": torch.full((2, 6), 32.0, dtype=torch.float64)}
        codes = unet.add_time_proj(added["time_ids"].flatten()).reshape(2, -1).double()
        signals["vector"] = Vector(torch.cat([added["text_embeds"], codes], dim=1))
    attention: dict[str, Any] = {}
    if masked:
        masks = torch.rand(1, 2, 32, 24, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        attention = {"ip_adapter_masks": [masks]}
        regions = torch.full((2, 8, 32, 24), -1.0, dtype=torch.float64)
        regions[:, :2] = masks
        signals["ip.region"] = Plane(regions)
    with torch.no_grad():
        want = unet(
            x, t, encoder_hidden_states=context, added_cond_kwargs=added, cross_attention_kwargs=attention or None
        ).sample
        part: Any = pipe.adapters["ip"]
        seen = part.projection(images.flatten(0, 1))
        layer = unet.encoder_hid_proj.image_projection_layers[0]
        projected = layer(images.flatten(0, 1)[:, 0] if kind == "plain" else images.flatten(0, 1))
        prepared = prepared_context(pipe.denoiser, pipe.adapters, signals, {}, None)
        got = pipe.denoiser(x, t, prepared)
        off = pipe.denoiser(x, t, prepared_context(pipe.denoiser, {}, signals, {}, None))
    assert isinstance(part, IPAdapter)
    assert float((seen - projected).abs().max()) < 1e-10 * float(projected.abs().max())
    assert float((got - want).abs().max()) < 1e-10 * float(want.abs().max())
    assert float((off - want).abs().max()) > 0.01 * float(want.abs().max())


@pytest.mark.parametrize("depth", [1, 2, 6])
def test_depths(tmp_path: Path, depth: int) -> None:
    """Resamplers of any depth (diffusers' loader reads four layers alone), built by hand of its blocks."""
    from diffusers.models.embeddings import IPAdapterPlusImageProjection

    theirs = tiny.stable_diffusion()
    ours = ldmkit.load(tiny.saved(theirs, tmp_path / "base")).to(dtype=torch.float64)
    shape = {"depth": depth, "heads": 3, "tokens": 7, "width": 16}
    halves = made.adapter(theirs.unet, "plus", **shape)
    part: Any = ours.with_adapter_file(made.saved(halves, tmp_path / "ip.safetensors"), length=made.TOKENS).adapters[
        "ip"
    ]
    oracle = IPAdapterPlusImageProjection(made.WIDTH, 32, 16, depth, 64, 3, 7).double().eval()
    own = halves["image_proj"]
    state = {key: own[key] for key in own if not key.startswith("layers.")}
    names = {"ln0": "0.norm1", "ln1": "0.norm2", "ff.0": "1.0"}
    for i in range(depth):
        state |= {
            f"layers.{i}.{a}.{p}": own[f"layers.{i}.{b}.{p}"] for a, b in names.items() for p in ("weight", "bias")
        }
        k, v = own[f"layers.{i}.0.to_kv.weight"].chunk(2)
        state |= {f"layers.{i}.attn.to_k.weight": k, f"layers.{i}.attn.to_v.weight": v}
        others = {"attn.to_q": "0.to_q", "attn.to_out.0": "0.to_out", "ff.1.net.0.proj": "1.1", "ff.1.net.2": "1.3"}
        state |= {f"layers.{i}.{a}.weight": own[f"layers.{i}.{b}.weight"] for a, b in others.items()}
    oracle.load_state_dict(state)
    x = draw(3, made.TOKENS, made.WIDTH)
    with torch.no_grad():
        want, got = oracle(x), part.projection(x)
    assert float((got - want).abs().max()) < 1e-10 * float(want.abs().max())
    with attached(ours.denoiser.ports, part.taps("ip")):
        assert all(ours.denoiser.ports[port].taps for port in part.taps("ip"))
    # the same projection in the names of diffusers' own modules
    renamed = {"image_proj": state, "ip_adapter": halves["ip_adapter"]}
    again: Any = ours.with_adapter_file(made.saved(renamed, tmp_path / "b.bin"), length=made.TOKENS).adapters["b"]
    assert torch.equal(again.projection(x), got)
