"""Tiny seeded pipelines of the oracle library, complete with tokenizer, to compare whole pipelines with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()
diffusers.utils.logging.disable_progress_bar()

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXT_WIDTH = 32


def tokenizer() -> CLIPTokenizer:
    """Byte pairs of single letters and one merge: enough to have words of several tokens."""
    words = [*LETTERS, *(f"{c}</w>" for c in LETTERS), "th", "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: i for i, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=[("t", "h")], model_max_length=77)


def text_model(projection: int | None = None, act: str = "quick_gelu") -> Any:
    count = len(LETTERS) * 2 + 3
    config = CLIPTextConfig(
        vocab_size=count,
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=projection or TEXT_WIDTH,
        hidden_act=act,
        bos_token_id=count - 2,
        eos_token_id=count - 1,
        pad_token_id=count - 1,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def vae() -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=32,
    )


def unet(**changes: Any) -> diffusers.UNet2DConditionModel:
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": 16,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": TEXT_WIDTH,
            "attention_head_dim": 4,
            "norm_num_groups": 8,
            **changes,
        }
    )


def scheduler(name: str = "DDIMScheduler", **changes: Any) -> Any:
    common = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    extra = {"clip_sample": False, "set_alpha_to_one": False} if name == "DDIMScheduler" else {}
    return getattr(diffusers, name)(**common, timestep_spacing="leading", **extra, **changes)


def stable_diffusion(seed: int = 0, **changes: Any) -> diffusers.StableDiffusionPipeline:
    """SD 1.x in small; `changes` go to the U-Net."""
    torch.manual_seed(seed)
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=text_model(),
        tokenizer=tokenizer(),
        unet=unet(**changes),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _ready(pipe)


def stable_diffusion_xl(seed: int = 0, **changes: Any) -> diffusers.StableDiffusionXLPipeline:
    torch.manual_seed(seed)
    network = unet(
        cross_attention_dim=2 * TEXT_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
        transformer_layers_per_block=(1, 2),
        **changes,
    )
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=text_model(),
        text_encoder_2=text_model(32, "gelu"),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=network,
        scheduler=scheduler("EulerDiscreteScheduler"),
        add_watermarker=False,
    )
    return _ready(pipe)


def refiner(seed: int = 0) -> diffusers.StableDiffusionXLImg2ImgPipeline:
    """SDXL's refiner in small: one text encoder, an aesthetic score in place of the target size."""
    base = stable_diffusion_xl(seed)
    torch.manual_seed(seed + 1)
    network = unet(
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=5 * 8 + 32,
    )
    pipe = diffusers.StableDiffusionXLImg2ImgPipeline(
        vae=base.vae, text_encoder=None, tokenizer=None, text_encoder_2=base.text_encoder_2,
        tokenizer_2=base.tokenizer_2, unet=network, scheduler=base.scheduler, add_watermarker=False,
        requires_aesthetics_score=True, force_zeros_for_empty_prompt=False,
    )  # fmt: skip
    return _ready(pipe)


def controlnet_pipeline(seed: int = 0) -> diffusers.StableDiffusionControlNetPipeline:
    base = stable_diffusion(seed)
    control = diffusers.ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(8, 16))
    with torch.no_grad():
        for parameter in control.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    pipe = diffusers.StableDiffusionControlNetPipeline(
        **{k: v for k, v in base.components.items() if k != "image_encoder"},
        controlnet=control,
        requires_safety_checker=False,
    )
    return _ready(pipe)


def _ready(pipe: Any) -> Any:
    with torch.no_grad():  # a last layer of zeros would make every network the same
        for module in (pipe.unet, pipe.vae):
            for parameter in module.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.02)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def saved(pipe: Any, folder: Path) -> Path:
    pipe.save_pretrained(folder)
    return folder
