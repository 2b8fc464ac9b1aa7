"""Files that hold no whole model are told what they are; what a file's metadata says of the prediction is evidence."""

from __future__ import annotations

from pathlib import Path

import diffusers
import pytest
import torch
from ldmkit_checkpoints.singlefile.models import infer_config
from safetensors.torch import save_file

import ldmkit
from ldmkit.models.weights import LazyTensor

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
    "lora_controlnet": "Control-LoRA",
    "control_add_embedding.linear_1.weight": "ControlNet Union",
    "controlnet_cond_embedding.conv_in.weight": "ControlNet",
    UNET + "input_blocks.0.0.weight": "U-Net alone",
    "down_blocks.0.resnets.0.conv1.weight": "U-Net alone",
    "encoder.down_blocks.0.resnets.0.conv1.weight": "first stage",
    "text_model.embeddings.token_embedding.weight": "text encoder alone",
    "position_net.linears.0.weight": "GLIGEN",
    "lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.down.0.weight": "LLLite",
    "unet.down_blocks.0.attentions.0.to_q.lora_linear_layer.up.weight": "LoRA",
    "down_blocks.0.attentions.0.processor.to_q_lora.down.weight": "LoRA",
    "double_blocks.0.processor.qkv_lora1.down.weight": "LoRA",
    "lora_unet_mid_block.diff": "LyCORIS",
    "id_encoder.layers.0.weight": "face",
    "down_blocks.0.attentions.0.attn2.processor.to_k_custom_diffusion.weight": "Custom Diffusion",
    "lora_unet_mid_block_attentions_0_proj_in.lambda_layer": "T-LoRA",
    "style_embedding": "style adapter of T2I",
    "spatial_feat_mapping.style.1.weight": "fuser of CoAdapters",
    "brushnet_down_blocks.0.weight": "BrushNet",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.delta": "SVDiff",
    "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": "AnimateDiff",
    "model.diffusion_model.double_blocks.0.img_attn_qkv.weight": "HunyuanVideo",
    "distilled_guidance_layer.in_proj.weight": "Chroma",
    "cond_seq_linear.weight": "AuraFlow",
    "text_embedding_padding": "Hunyuan-DiT",
    "head.modulation": "Wan",
    "conv_first.weight": "upscaler",
    "model.1.sub.0.RDB1.conv1.0.weight": "upscaler",
    "body.0.rdb1.conv1.weight": "upscaler",
    "body.12.weight": "upscaler",
    "scaled_fp8": "8-bit",
    "model.layers.0.self_attn.q_proj.weight": "language model",
    "encoder.layers.0.self_attn.q_proj.weight": "text encoder alone",
    "encoder.layers.0.weight": "TAESD",
    "3.conv.0.weight": "TAESD",
    "shared.weight": "T5",
    "transformer.resblocks.0.attn.in_proj_weight": "text encoder alone",
    "decoder.middle.0.residual.0.gamma": "video first stage",
    "vquantizer.codebook.weight": "Cascade",
}
MODELS = {
    "cc_projection.weight": "Zero-1-to-3",
    "depth_model.model.pretrained.cls_token": "depth model",
    "low_scale_model.betas": "upscaler",
    "noise_augmentor.time_embed.0.weight": "unCLIP",
    "cond_stage_model.model.visual.proj": "image-variation",
    "cond_stage_model.transformer.vision_model.embeddings.class_embedding": "image-variation",
    "edm_mean": "Playground",
    "edm_vpred.sigma_max": "CosXL",
    UNET + "input_blocks.1.1.time_stack.0.norm1.weight": "Stable Video",
    UNET + "time_embed.cond_proj.weight": "latent consistency",
    UNET + "input_blocks.1.1.transformer_blocks.0.fuser.alpha_attn": "GLIGEN",
    UNET + "input_blocks.1.1.proj_in.scale_weight": "8-bit floats",
    UNET + "input_blocks.1.1.proj_in.weight.absmax": "bitsandbytes",
    UNET + "input_blocks.1.1.proj_in.lora_A.weight": "unfused LoRA",
}


@pytest.mark.parametrize("key", NAMED)
def test_named(key: str, tmp_path: Path) -> None:
    save_file({key: torch.zeros(4, 4)}, tmp_path / "a.safetensors")
    with pytest.raises(ldmkit.LdmkitError, match=NAMED[key]) as caught:
        ldmkit.load(tmp_path / "a.safetensors")
    assert "yaml" not in str(caught.value) or "U-Net" in NAMED[key]


@pytest.mark.parametrize("key", MODELS)
def test_models_that_are_others_in_one_thing(key: str) -> None:
    """A whole Stable Diffusion but for one key."""
    with pytest.raises(ldmkit.SourceError, match=f"unsupported.*it is .*{MODELS[key]}"):
        infer_config(sd(768, "transformer.x") | {key: LazyTensor.of(torch.zeros(1))}, {}, "a")


def test_one_word_of_any_name_is_an_embedding() -> None:
    for width in (768, 1024, 1280):
        with pytest.raises(ldmkit.SourceError, match="textual inversion"):
            infer_config({"sks": LazyTensor.of(torch.zeros(2, width))}, {}, "a")


CLASSES = {
    "AutoencoderKL": "first stage with diffusers' keys",
    "VQModel": "first stage with diffusers' keys",
    "AutoencoderTiny": "TAESD",
    "AutoencoderDC": "video first stage, or one of another family",
    "AutoencoderKLWan": "video first stage, or one of another family",
    "AutoencoderKLTemporalDecoder": "Stable Video Diffusion",
    "UNet2DConditionModel": "U-Net alone",
    "UNet3DConditionModel": "video U-Net",
    "UNetSpatioTemporalConditionModel": "Stable Video Diffusion",
    "MotionAdapter": "AnimateDiff",
    "ControlNetModel": "ControlNet with diffusers' keys",
    "ControlNetXSAdapter": "ControlNet-XS",
    "T2IAdapter": "T2I-Adapter",
    "FluxTransformer2DModel": "FLUX",
    "FluxControlNetModel": "ControlNet of FLUX",
    "SD3Transformer2DModel": "Stable Diffusion 3",
    "PixArtTransformer2DModel": "PixArt",
    "SanaTransformer2DModel": "Sana",
    "AuraFlowTransformer2DModel": "AuraFlow",
    "ChromaTransformer2DModel": "Chroma",
    "StableCascadeUNet": "Stable Cascade",
    "QwenImageTransformer2DModel": "Qwen-Image",
    "HunyuanVideoTransformer3DModel": "HunyuanVideo",
    "PriorTransformer": "transformer of an unknown family",
    "CogView4Transformer2DModel": "transformer of an unknown family",
    "WanTransformer3DModel": "transformer of an unknown family",
}


@pytest.mark.parametrize("name", CLASSES)
def test_weights_of_diffusers_classes_without_their_config(name: str) -> None:
    """The keys that the installed class has at its default size."""
    with torch.device("meta"):
        keys = getattr(diffusers, name)().state_dict()
    with pytest.raises(ldmkit.SourceError, match=CLASSES[name]) as caught:
        infer_config({key: LazyTensor.of(torch.zeros(1)) for key in keys}, {}, "a")
    assert "yaml" not in str(caught.value)


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
    shapes |= {"conditioner.embedders.0.x": (1, 1), "conditioner.embedders.1.x": (1, 1)}
    shapes |= {"first_stage_model.encoder.conv_in.weight": (1, 1)}
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
