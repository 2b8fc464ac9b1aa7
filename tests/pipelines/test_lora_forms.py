"""Changes of weights in every form, against the same weights changed by arithmetic written out here.

The network runs in float64. Tolerance: 1e-10 of the largest value, which is its rounding over some twenty layers.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
from safetensors.torch import save_file
from torch import Tensor

import ldmkit
from ldmkit.contracts.nn import layer_of

UNET = {
    "channels": 3, "widths": (16, 32), "blocks": 1, "norm_groups": 4, "heads": 2, "attention": ("none", "cross"),
    "context_dim": 16,
}  # fmt: skip
QUERY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"  # 32 to 32
CONV = "lora_unet_mid_block_resnets_0_conv1"  # 32 to 32, 3x3
WORD = "lora_te_text_model_encoder_layers_1_self_attn_k_proj"  # rows 16 to 32 of one layer
FULL = "lora_unet_mid_block_attentions_0_proj_in"  # 32 to 32, published as a 1x1 convolution
PORTS = {
    QUERY: "linear.mid.attn.blocks.0.self_attn.to_q",
    CONV: "conv.mid.res.0.conv_1",
    FULL: "linear.mid.attn.proj_in",
}


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    made = ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.part("denoiser", "unet", UNET),
        process=ldmkit.get("process", "discrete")(),
        conditioners={"text": tiny_parts.part("conditioner", "clip-text", tiny_parts.CLIP, seed=3)},
        defaults={"size": (8, 8)},
    )
    return made.to(torch.float64)


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + seed), dtype=torch.float64) * 0.3


def tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    out = torch.zeros(a.shape[1], b.shape[1], *core.shape[2:], dtype=core.dtype)
    for p in range(core.shape[0]):
        for q in range(core.shape[1]):
            out += torch.einsum("o,i,kl->oikl", a[p], b[q], core[p, q])
    return out


Cases = dict[str, tuple[str, dict[str, Tensor], Any]]
"""Name -> layer, its tensors in the file, and the change of W that they stand for."""


def low_rank() -> Cases:
    """LoRA, LoCon, DoRA, and the full difference."""
    v = values
    down, up, mid, ones = v(2, 32), v(32, 2), v(2, 2, 3, 3), v(2, 32, 3, 3)
    return {
        "lora": (
            QUERY,
            {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(6.0)},
            lambda w: 3 * up @ down,
        ),
        "locon": (
            CONV,
            {"lora_down.weight": ones, "lora_up.weight": up[..., None, None]},
            lambda w: torch.einsum("or,rikl->oikl", up, ones),
        ),
        "locon, tucker": (
            CONV,
            {"lora_down.weight": down[..., None, None], "lora_mid.weight": mid, "lora_up.weight": up[..., None, None]},
            lambda w: tucker(mid, up.T, down),
        ),
        "dora of columns": (
            QUERY,
            {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": v(1, 32).abs()},
            lambda w: v(1, 32).abs() * (w + up @ down) / (w + up @ down).norm(dim=0, keepdim=True) - w,
        ),
        "dora of rows": (
            QUERY,
            {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": v(32, 1).abs()},
            lambda w: v(32, 1).abs() * (w + up @ down) / (w + up @ down).norm(dim=1, keepdim=True) - w,
        ),
        "dora of a convolution's columns": (
            CONV,
            {"lora_down.weight": ones, "lora_up.weight": up[..., None, None], "dora_scale": v(1, 32, 1, 1).abs()},
            lambda w: _dora(w, torch.einsum("or,rikl->oikl", up, ones), v(1, 32, 1, 1).abs()),
        ),
        "full": (FULL, {"diff": v(32, 32, 1, 1)}, lambda w: v(32, 32, 1, 1).flatten(1)),
    }  # fmt: skip


def products() -> Cases:
    """LoHa and LoKr."""
    v = values
    hada = [v(32, 2, seed=i) if i % 2 == 0 else v(2, 32, seed=i) for i in range(4)]
    w1, w2a, w2b, flat = v(4, 8), v(8, 2), v(2, 4), v(2, 4 * 9)
    t1, t2 = v(2, 2, 3, 3), v(2, 2, 3, 3, seed=5)
    f = [v(2, 32, seed=i) for i in range(10, 14)]
    return {
        "loha": (
            QUERY,
            {
                "hada_w1_a": hada[0], "hada_w1_b": hada[1], "hada_w2_a": hada[2], "hada_w2_b": hada[3],
                "alpha": torch.tensor(1.0),
            },
            lambda w: 0.5 * (hada[0] @ hada[1]) * (hada[2] @ hada[3]),
        ),
        "loha, tucker": (
            CONV,
            {"hada_t1": t1, "hada_w1_a": f[0], "hada_w1_b": f[1], "hada_t2": t2, "hada_w2_a": f[2], "hada_w2_b": f[3]},
            lambda w: tucker(t1, f[0], f[1]) * tucker(t2, f[2], f[3]),
        ),
        "lokr": (
            QUERY,
            {"lokr_w1": w1, "lokr_w2_a": w2a, "lokr_w2_b": w2b, "alpha": torch.tensor(4.0)},
            lambda w: 2 * torch.kron(w1, w2a @ w2b),
        ),
        "lokr, both whole": (  # LyCORIS leaves alpha out of account then
            QUERY,
            {"lokr_w1": w1, "lokr_w2": v(8, 4), "alpha": torch.tensor(1e10)},
            lambda w: torch.kron(w1, v(8, 4)),
        ),
        "lokr, convolution": (
            CONV,
            {"lokr_w1": w1, "lokr_w2_a": w2a, "lokr_w2_b": flat},
            lambda w: torch.kron(w1[..., None, None], (w2a @ flat).view(8, 4, 3, 3)),
        ),
    }  # fmt: skip


def _dora(w: Tensor, change: Tensor, lengths: Tensor) -> Tensor:
    whole = w + change
    return lengths * whole / whole.pow(2).sum((0, 2, 3), keepdim=True).sqrt() - w


CASES = low_rank() | products()


def saved(path: Path, layer: str, tensors: dict[str, Tensor]) -> Path:
    save_file({f"{layer}.{name}": tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def changed(pipe: ldmkit.Pipeline, port: str, change: Any, bias: Tensor | None = None) -> ldmkit.Pipeline:
    """The pipeline with a weight of its denoiser changed."""
    unet = copy.deepcopy(pipe.denoiser)
    layer = layer_of(unet, unet.ports, port)
    assert layer is not None
    with torch.no_grad():
        layer.weight += change(layer.weight.clone())
        if bias is not None and layer.bias is not None:
            layer.bias += bias
    return pipe.with_(denoiser=unet)


def drawn(pipe: ldmkit.Pipeline) -> Tensor:
    return pipe({"text": [47, 3, 9, 48]}, steps=2, seeds=[1]).latents


def far(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("name", CASES)
def test_forms(pipe: ldmkit.Pipeline, tmp_path: Path, name: str) -> None:
    layer, tensors, change = CASES[name]
    mine = pipe.with_lora(saved(tmp_path / "a.safetensors", layer, tensors))
    want = drawn(changed(pipe, PORTS[layer], change))
    assert far(drawn(pipe), want) > 1e-5
    assert far(drawn(mine), want) < 1e-10
    assert far(drawn(mine.fused()), want) < 1e-10


def test_a_bias(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    tensors = {"diff": values(32, 32, 1, 1), "diff_b": values(32)}
    mine = pipe.with_lora(saved(tmp_path / "a.safetensors", FULL, tensors), 0.5)
    want = drawn(changed(pipe, PORTS[FULL], lambda w: values(32, 32, 1, 1).flatten(1) / 2, values(32) / 2))
    assert far(drawn(mine), want) < 1e-10 and far(drawn(mine.fused()), want) < 1e-10
    alone = pipe.with_lora(saved(tmp_path / "b.safetensors", FULL, {"diff_b": values(32)}))
    want = drawn(changed(pipe, PORTS[FULL], torch.zeros_like, values(32)))
    assert far(drawn(alone), want) < 1e-10 and far(drawn(alone.fused()), want) < 1e-10


def test_keys_of_a_text_encoder(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    """q, k and v are one layer here, and a file changes one of them."""
    down, up = values(2, 16), values(16, 2)
    file = saved(tmp_path / "a.safetensors", WORD, {"lora_down.weight": down, "lora_up.weight": up})
    text = copy.deepcopy(pipe.conditioners["text"])
    with torch.no_grad():
        dict(text.named_parameters())["tower.blocks.1.qkv.weight"][16:32] += up @ down
    want = drawn(pipe.with_(conditioners={"text": text}))
    mine = pipe.with_lora(file)
    assert far(drawn(pipe), want) > 1e-5
    assert far(drawn(mine), want) < 1e-10 and far(drawn(mine.fused()), want) < 1e-10


def test_a_bias_of_some_outputs(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    """Of k in a layer of q, k and v, attached and fused."""
    file = saved(tmp_path / "a.safetensors", WORD, {"diff_b": values(16)})
    text = copy.deepcopy(pipe.conditioners["text"])
    with torch.no_grad():
        dict(text.named_parameters())["tower.blocks.1.qkv.bias"][16:32] += values(16)
    want, mine = drawn(pipe.with_(conditioners={"text": text})), pipe.with_lora(file)
    assert far(drawn(mine), want) < 1e-10 and far(drawn(mine.fused()), want) < 1e-10


def test_scales_of_blocks(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    """The longest beginning counts; layers of none have the whole strength."""
    tensors = {}
    for layer in (QUERY, CONV):
        _, own, _ = CASES["lora" if layer == QUERY else "locon"]
        tensors |= {f"{layer}.{name}": tensor.clone() for name, tensor in own.items()}
    save_file(tensors, tmp_path / "a.safetensors")
    mine = pipe.with_lora(tmp_path / "a.safetensors", 0.5, scales={"mid": 0.4, "mid.attn": 0.0})
    want = drawn(changed(pipe, PORTS[CONV], lambda w: 0.2 * CASES["locon"][2](w)))
    assert far(drawn(mine), want) < 1e-10
    with pytest.raises(ldmkit.SpecError, match=r"scales\.middle.*'middle'"):
        pipe.with_lora(tmp_path / "a.safetensors", scales={"middle": 1.0})
