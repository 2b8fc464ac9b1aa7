"""Files that hold no whole model are told what they are; what a file's metadata says of the prediction is evidence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ldmkit_checkpoints.single_file import infer_config
from safetensors.torch import save_file

import ldmkit
from ldmkit.weights import LazyTensor

UNET = "model.diffusion_model."
NAMED = {
    "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": "LoRA",
    "unet.mid_block.attentions.0.proj_in.lora_A.weight": "LoRA",
    "lora_unet_mid_block.hada_w1_a": "LyCORIS",
    "lora_te1_text_model.lokr_w1": "LyCORIS",
    "emb_params": "textual inversion",
    "<cat-toy>": "textual inversion",
    "clip_g": "textual inversion",
    "ip_adapter.1.to_k_ip.weight": "IP-Adapter",
    "body.0.block1.weight": "T2I-Adapter",
    "double_blocks.0.img_attn.qkv.weight": "FLUX",
    UNET + "double_blocks.0.img_attn.qkv.weight": "FLUX",
    UNET + "joint_blocks.0.x_block.attn.qkv.weight": "Stable Diffusion 3",
    "effnet_mapper.0.weight": "Cascade",
    "adaln_single.linear.weight": "PixArt",
    "lora_controlnet": "ControlNet-LoRA",
    "control_add_embedding.linear_1.weight": "ControlNet union",
    "controlnet_cond_embedding.conv_in.weight": "ControlNet",
    UNET + "input_blocks.0.0.weight": "U-Net alone",
    "down_blocks.0.resnets.0.conv1.weight": "U-Net alone",
    "encoder.down_blocks.0.resnets.0.conv1.weight": "first stage",
    "text_model.embeddings.token_embedding.weight": "text encoder alone",
    "position_net.linears.0.weight": "GLIGEN",
}


@pytest.mark.parametrize("key", NAMED)
def test_named(key: str, tmp_path: Path) -> None:
    save_file({key: torch.zeros(4, 4)}, tmp_path / "a.safetensors")
    with pytest.raises(ldmkit.LdmkitError, match=NAMED[key]) as caught:
        ldmkit.load(tmp_path / "a.safetensors")
    assert "yaml" not in str(caught.value) or "U-Net" in NAMED[key]


def test_a_model_without_its_text_encoder_is_told_so(tmp_path: Path) -> None:
    keys = (UNET + "input_blocks.0.0.weight", UNET + "x.attn2.to_k.weight", "first_stage_model.encoder.conv_in.weight")
    save_file({key: torch.zeros(4, 4) for key in keys}, tmp_path / "a.safetensors")
    with pytest.raises(ldmkit.LdmkitError, match="without its text encoder"):
        ldmkit.load(tmp_path / "a.safetensors")


def sd(context: int, end: str) -> dict[str, LazyTensor]:
    shapes = {UNET + "input_blocks.0.0.weight": (320, 4, 3, 3), f"cond_stage_model.{end}": (1, 1)}
    shapes[UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"] = (320, context)
    shapes["first_stage_model.encoder.conv_in.weight"] = (1, 1)
    return {key: LazyTensor.of(torch.zeros(shape)) for key, shape in shapes.items()}


def sdxl(channels: int = 4, *markers: str) -> dict[str, LazyTensor]:
    shapes = {UNET + "input_blocks.0.0.weight": (320, channels, 3, 3), UNET + "label_emb.0.0.weight": (1280, 2816)}
    shapes |= {"conditioner.embedders.1.x": (1, 1), "first_stage_model.encoder.conv_in.weight": (1, 1)}
    return {key: LazyTensor.of(torch.zeros(shape)) for key, shape in (shapes | dict.fromkeys(markers, (1,))).items()}


def test_sdxl_for_inpainting_is_not_read_as_the_base_model() -> None:
    config, notes = infer_config(sdxl(9), {}, "a")
    assert config["model"]["params"]["network_config"]["params"]["in_channels"] == 9
    assert "for inpainting" in notes[0]


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt", "a.gguf"])
def test_what_was_saved_in_place_of_a_file(name: str, tmp_path: Path) -> None:
    pages = {
        "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid",
        "web page": b"\n<!DOCTYPE html>",
        "GGUF": b"GGUF\3",
    }
    for says, content in pages.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ldmkit.LdmkitError, match=says):
            ldmkit.load(tmp_path / name)
