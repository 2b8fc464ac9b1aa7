"""ControlNets in diffusers' further settings, and files of them without a config, against ControlNetModel in float64.

Tolerance 1e-10 of the largest value: the same function, in another order of sums.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from ldmkit_checkpoints.compvis.controlnet import controlnet_compvis
from ldmkit_checkpoints.diffusers.export import published
from test_unet_diffusers import far, normal, seeded

import ldmkit
from ldmkit import Context, Plane, Tokens, Vector
from ldmkit.models.weights import write_safetensors

SD: dict[str, Any] = {
    "block_out_channels": (64, 128, 128), "cross_attention_dim": 24, "layers_per_block": 2,
    "conditioning_embedding_out_channels": (4, 8, 8, 8), "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
}  # fmt: skip
XL: dict[str, Any] = {
    **SD, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "attention_head_dim": (1, 2, 2), "transformer_layers_per_block": (1, 2, 3), "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 34,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "sd1": SD,
    "sd2": {**SD, "attention_head_dim": (1, 2, 2), "use_linear_projection": True},
    "nine channels in": {**SD, "in_channels": 9},
    "one block a level": {**SD, "layers_per_block": 1},
    "xl": XL,
    "xl, mid": {**XL, "transformer_layers_per_block": (1, 1, 1)},
    "xl, small": {**XL, "down_block_types": ("DownBlock2D",) * 3, "mid_block_type": "UNetMidBlock2D"},
    "xl, attention in the middle alone": {**XL, "down_block_types": ("DownBlock2D",) * 3},
    "xl, none in the middle": {**XL, "mid_block_type": "UNetMidBlock2D"},
    "shuffle": {**SD, "global_pool_conditions": True},
    "bgr": {**SD, "controlnet_conditioning_channel_order": "bgr"},
    "grey hint": {**SD, "conditioning_channels": 1},
}
UNTOLD = ("shuffle", "bgr")
"""What keys do not say."""


def inputs(oracle: Any, size: tuple[int, int]) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    """Arguments of the oracle, and our signals."""
    x, tokens = normal(2, oracle.config.in_channels, *size), normal(2, 5, 24, seed=3)
    hint = torch.rand(2, oracle.config.conditioning_channels, 8 * size[0], 8 * size[1], dtype=torch.float64)
    t = torch.tensor([3.0, 871.0], dtype=torch.float64)
    signals: dict[str, Any] = {"context": Tokens(tokens), "c.hint": Plane(hint)}
    more: dict[str, Any] = {}
    if oracle.config.addition_embed_type:
        pooled, sizes = normal(2, 10, seed=4), torch.arange(12.0, dtype=torch.float64).view(2, 6) * 50
        more["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
        signals["vector"] = Vector(torch.cat([pooled, oracle.add_time_proj(sizes.flatten()).view(2, -1).double()], 1))
    return (x, t, tokens, hint), more, signals


def same(oracle: Any, control: Any, size: tuple[int, int] = (8, 12), **options: Any) -> None:
    """Every residual is the oracle's."""
    given, more, signals = inputs(oracle, size)
    with torch.no_grad():
        down, mid = oracle(*given, return_dict=False, **more, **options)
        got = control(given[0], given[1], control.prepare(Context(signals), "c"))
    assert len(got) == len(down) + 1
    for mine, theirs in zip(got, (*down, mid), strict=True):
        assert mine.shape == theirs.shape and far(mine, theirs) <= 1e-10


def saved(name: str, folder: Path) -> Any:
    oracle: Any = seeded("ControlNetModel", MODELS[name])
    oracle.save_pretrained(folder)
    return oracle


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
def test_folders(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    oracle = saved(name, tmp_path)
    control: Any = ldmkit.load_adapter(tmp_path)
    same(oracle, control, size)
    same(oracle, control.tuned(scale=0.7), size, conditioning_scale=0.7)
    same(oracle, control.tuned(guess=True, guess_weights="logspace"), size, guess_mode=True)


@pytest.mark.parametrize("prefix", ["", "controlnet.", "module."])
@pytest.mark.parametrize("name", [name for name in MODELS if name not in UNTOLD])
def test_diffusers_keys_alone(name: str, prefix: str, tmp_path: Path) -> None:
    oracle = saved(name, tmp_path / "folder")
    file = tmp_path / "control.safetensors"
    write_safetensors(file, {prefix + key: tensor for key, tensor in oracle.state_dict().items()})
    same(oracle, ldmkit.load_adapter(file))


@pytest.mark.parametrize("prefix", ["", "control_model."])
@pytest.mark.parametrize("name", [name for name in MODELS if name not in UNTOLD])
def test_compvis_keys_alone(name: str, prefix: str, tmp_path: Path) -> None:
    oracle = saved(name, tmp_path / "folder")
    control: Any = ldmkit.load_adapter(tmp_path / "folder")
    file = tmp_path / "control.safetensors"
    tensors = published(control.state_dict(), controlnet_compvis(control.config))
    write_safetensors(file, {prefix + key: tensor.contiguous() for key, tensor in tensors.items()})
    same(oracle, ldmkit.load_adapter(file))
    if oracle.config.addition_embed_type:
        return  # the oracle reads no such file of SDXL; the layout is that of its U-Net, which it reads
    theirs = diffusers.ControlNetModel.from_single_file(str(file), config=str(tmp_path / "folder"))
    assert all(
        torch.equal(tensor.float(), oracle.state_dict()[key].float()) for key, tensor in theirs.state_dict().items()
    )


@pytest.mark.parametrize("name", MODELS)
def test_written_back(name: str) -> None:
    from ldmkit_checkpoints.diffusers.controlnet import controlnet_from_diffusers, controlnet_to_diffusers

    with torch.device("meta"):
        config = controlnet_from_diffusers(dict(diffusers.ControlNetModel(**MODELS[name]).config))
    if name == "xl, small":
        with pytest.raises(ldmkit.SourceError, match="not-expressible"):
            controlnet_to_diffusers(config)
        return
    written = controlnet_to_diffusers(config)
    again = controlnet_from_diffusers(written)
    assert (again.order, again.pooled, again.unet.mid_kind) == (config.order, config.pooled, config.unet.mid_kind)


def test_another_order_is_refused() -> None:
    from ldmkit_checkpoints.diffusers.controlnet import controlnet_from_diffusers

    with pytest.raises(ldmkit.SourceError, match=r"controlnet_conditioning_channel_order.*'rgb' or 'bgr'"):
        controlnet_from_diffusers({"_class_name": "ControlNetModel", "controlnet_conditioning_channel_order": "grb"})
