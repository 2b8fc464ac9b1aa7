"""Tiny seeded pipelines of diffusers that read embeddings of pictures: Stable unCLIP and Kandinsky 2.2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import tiny_diffusers as tiny
import torch
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

DIM = 32


def ready(pipe: Any, folder: Path) -> Any:
    """The pipeline as its own folder gives it back, in eval mode."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def image_encoder(dim: int = DIM) -> Any:
    shape = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**shape, projection_dim=dim, image_size=28, patch_size=7))


def image_processor() -> Any:
    return CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})


def normalizer() -> Any:
    made = StableUnCLIPImageNormalizer(embedding_dim=DIM)
    made.mean.data.normal_(std=0.3)
    made.std.data.uniform_(0.5, 1.5)
    return made


def stable_unclip(folder: Path, seed: int = 0, noising: Any = None, **changes: Any) -> Any:
    """Stable unCLIP that reads a picture, in small; `changes` go to the U-Net."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2 * DIM}
    pipe = diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=image_processor(),
        image_encoder=image_encoder(),
        image_normalizer=normalizer(),
        image_noising_scheduler=noising or diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=tiny.tokenizer(),
        text_encoder=tiny.text_model(),
        unet=tiny.unet(**options, **changes),
        scheduler=tiny.scheduler(prediction_type="v_prediction"),
        vae=tiny.vae(),
    )
    return ready(pipe, folder)


def movq() -> Any:
    return diffusers.VQModel(
        block_out_channels=[32, 64],
        down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )


def decoder_unet(**changes: Any) -> Any:
    options: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 8,
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "encoder_hid_dim": DIM,
        "encoder_hid_dim_type": "image_proj",
        "addition_embed_type": "image",
        "cross_attention_dim": DIM,
        "attention_head_dim": 4,
        "resnet_time_scale_shift": "scale_shift",
    }
    return diffusers.UNet2DConditionModel(**{**options, **changes})


LINEAR: dict[str, Any] = {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}


def decoder_scheduler(name: str = "DDPMScheduler", **changes: Any) -> Any:
    own: dict[str, Any] = {"set_alpha_to_one": False, "steps_offset": 1}
    if name == "DDPMScheduler":
        own = {"variance_type": "learned_range"}
    return getattr(diffusers, name)(**{**LINEAR, **own, **changes})


def kandinsky(folder: Path, scheduler: Any = None, cls: str = "KandinskyV22Pipeline", **changes: Any) -> Any:
    """Kandinsky 2.2's decoder in small; `changes` go to the U-Net."""
    torch.manual_seed(1)
    parts = {"unet": decoder_unet(**changes), "scheduler": scheduler or decoder_scheduler(), "movq": movq()}
    return ready(getattr(diffusers, cls)(**parts), folder)


def prior_network() -> Any:
    net = diffusers.PriorTransformer(num_attention_heads=2, attention_head_dim=12, embedding_dim=DIM, num_layers=1)
    for parameter in (net.positional_embedding, net.prd_embedding, net.clip_mean):
        parameter.data.normal_(std=0.3)
    net.clip_std.data.uniform_(0.5, 1.0)
    return net


def prior_scheduler(bound: float = 10.0) -> Any:
    return diffusers.UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=bound)


def kandinsky_prior(folder: Path) -> Any:
    torch.manual_seed(2)
    pipe = diffusers.KandinskyV22PriorPipeline(
        prior=prior_network(),
        image_encoder=image_encoder(),
        text_encoder=tiny.text_model(DIM),
        tokenizer=tiny.tokenizer(),
        scheduler=prior_scheduler(),
        image_processor=image_processor(),
    )
    return ready(pipe, folder)


def combined(folder: Path, scheduler: Any = None) -> Any:
    torch.manual_seed(3)
    pipe = diffusers.KandinskyV22CombinedPipeline(
        unet=decoder_unet(),
        scheduler=scheduler or decoder_scheduler("DDIMScheduler"),
        movq=movq(),
        prior_prior=prior_network(),
        prior_image_encoder=image_encoder(),
        prior_text_encoder=tiny.text_model(DIM),
        prior_tokenizer=tiny.tokenizer(),
        prior_scheduler=prior_scheduler(),
        prior_image_processor=image_processor(),
    )
    return ready(pipe, folder)


def stable_unclip_with_prior(folder: Path, scheduler: Any = None) -> Any:
    torch.manual_seed(4)
    usual = diffusers.DDPMScheduler.from_config(prior_scheduler(5.0).config, beta_schedule="squaredcos_cap_v2")
    options: dict[str, Any] = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2 * DIM}
    pipe = diffusers.StableUnCLIPPipeline(
        prior_tokenizer=tiny.tokenizer(),
        prior_text_encoder=tiny.text_model(DIM),
        prior=prior_network(),
        prior_scheduler=scheduler or usual,
        image_normalizer=normalizer(),
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=tiny.tokenizer(),
        text_encoder=tiny.text_model(),
        unet=tiny.unet(**options),
        scheduler=tiny.scheduler(prediction_type="v_prediction"),
        vae=tiny.vae(),
    )
    return ready(pipe, folder)
