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
