"""Tiny models of DeepFloyd IF and of Stable Diffusion's x4 upscaler, as diffusers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import tiny_diffusers
import torch
from transformers import T5Config, T5EncoderModel, T5TokenizerFast

WIDTH = 32
NET: dict[str, Any] = {
    "layers_per_block": 1, "block_out_channels": [32, 64], "in_channels": 3, "out_channels": 6,
    "cross_attention_dim": 32, "encoder_hid_dim": WIDTH, "encoder_hid_dim_type": "text_proj",
    "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
    "attention_head_dim": 8, "addition_embed_type": "text", "addition_embed_type_num_heads": 2,
    "cross_attention_norm": "group_norm", "resnet_time_scale_shift": "scale_shift", "act_fn": "gelu",
}  # fmt: skip
SECOND: dict[str, Any] = {
    **NET, "in_channels": 6, "layers_per_block": [1, 2], "class_embed_type": "timestep",
    "mid_block_scale_factor": 1.414, "resnet_out_scale_factor": 1.414, "resnet_skip_time_act": True,
    "time_embedding_act_fn": "gelu", "time_embedding_dim": 32,
}  # fmt: skip
SAFETY: dict[str, Any] = {
    "safety_checker": None, "feature_extractor": None, "watermarker": None, "requires_safety_checker": False,
}  # fmt: skip
COSINE = {"beta_schedule": "squaredcos_cap_v2"}


def scheduler(bound: float, **changes: Any) -> diffusers.DDPMScheduler:
    settings = {"variance_type": "learned_range", "thresholding": True, "dynamic_thresholding_ratio": 0.95}
    return diffusers.DDPMScheduler(**{**COSINE, **settings, "sample_max_value": bound, **changes})


def network(seed: int, options: dict[str, Any]) -> diffusers.UNet2DConditionModel:
    torch.manual_seed(seed)
    net = diffusers.UNet2DConditionModel(**options).eval()
    with torch.no_grad():
        net.conv_out.weight.normal_(std=0.003)
    return net


def encoder(seed: int = 3) -> Any:
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu"}
    model = T5EncoderModel(T5Config(vocab_size=64, d_model=WIDTH, **shape)).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def tokenizer(folder: Path) -> T5TokenizerFast:
    """A vocabulary of letters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -3.0)]
    pieces += [(letter, -2.0 - i / 50) for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz,.ABCDE")]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512)


def first(folder: Path, text: bool = True, kind: str = "IFPipeline", **net: Any) -> Path:
    """IF-I at 16 pixels."""
    words = {"tokenizer": tokenizer(folder), "text_encoder": encoder()} if text else dict.fromkeys(
        ("tokenizer", "text_encoder")
    )  # fmt: skip
    unet = network(1, {**NET, "sample_size": 16, **net})
    getattr(diffusers, kind)(unet=unet, scheduler=scheduler(1.5), **words, **SAFETY).save_pretrained(folder)
    return folder


def second(folder: Path, text: bool = False, kind: str = "IFSuperResolutionPipeline", **net: Any) -> Path:
    """IF-II at 32 pixels."""
    words = {"tokenizer": tokenizer(folder), "text_encoder": encoder()} if text else dict.fromkeys(
        ("tokenizer", "text_encoder")
    )  # fmt: skip
    unet = network(2, {**SECOND, "sample_size": 32, **net})
    noising = diffusers.DDPMScheduler(**COSINE)
    pipe = getattr(diffusers, kind)(
        unet=unet, scheduler=scheduler(1.0), image_noising_scheduler=noising, **words, **SAFETY
    )
    pipe.save_pretrained(folder)
    return folder


def third(folder: Path, levels: int = 350, **vae: Any) -> Path:
    """The x4 upscaler, with latents of half its picture's size."""
    torch.manual_seed(5)
    unet = diffusers.UNet2DConditionModel(
        sample_size=32, in_channels=7, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32, attention_head_dim=8, num_class_embeds=1000, only_cross_attention=(True, True),
        use_linear_projection=True, norm_num_groups=8,
    ).eval()  # fmt: skip
    codec = diffusers.AutoencoderKL(
        block_out_channels=(16, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, layers_per_block=1, norm_num_groups=8,
        sample_size=32, **{"scaling_factor": 0.08333, **vae},
    ).eval()  # fmt: skip
    low = diffusers.DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.0001, beta_end=0.02)
    steps = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.0001, beta_end=0.02, prediction_type="v_prediction",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    pipe = diffusers.StableDiffusionUpscalePipeline(
        vae=codec, text_encoder=tiny_diffusers.text_model(), tokenizer=tiny_diffusers.tokenizer(), unet=unet,
        low_res_scheduler=low, scheduler=steps, max_noise_level=levels,
    )  # fmt: skip
    pipe.save_pretrained(folder)
    return folder


def all_three(folder: Path) -> Path:
    """A folder of all stages."""
    first(folder / "IF-I"), second(folder / "IF-II"), third(folder / "upscaler")
    return folder
