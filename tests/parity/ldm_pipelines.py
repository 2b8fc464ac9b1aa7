"""Tiny seeded pipelines of latent diffusion and of pixels, as diffusers makes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from torch import Tensor, nn
from transformers import BertTokenizer

from ldmkit.run.noise import Noise

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))
import tiny_diffusers as tiny

LDM_BETAS = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear", "clip_sample": False}


def start_noise(shape: tuple[int, ...]) -> Tensor:
    return Noise([0], shape)(0, "start")


def vq_model(**changes: Any) -> diffusers.VQModel:
    return diffusers.VQModel(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=3,
        num_vq_embeddings=16,
        **{"scaling_factor": 1.0, **changes},
    )


def plain_unet(channels: int = 3) -> diffusers.UNet2DModel:
    return diffusers.UNet2DModel(
        sample_size=16,
        in_channels=channels,
        out_channels=3,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    )


def ready(pipe: Any) -> Any:
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def unconditional() -> Any:
    torch.manual_seed(1)
    return ready(diffusers.LDMPipeline(vq_model(), plain_unet(), diffusers.DDIMScheduler(**LDM_BETAS)))


def pixels() -> Any:
    torch.manual_seed(2)
    return ready(diffusers.DDPMPipeline(plain_unet(), diffusers.DDPMScheduler(clip_sample=False)))


def super_resolution() -> Any:
    torch.manual_seed(3)
    scheduler = diffusers.DDIMScheduler(**LDM_BETAS)
    return ready(diffusers.LDMSuperResolutionPipeline(vq_model(), plain_unet(6), scheduler))


def paper_text(folder: Path, first_stage: Any = None) -> Any:
    torch.manual_seed(4)
    shape = {"encoder_layers": 2, "encoder_attention_heads": 2, "head_dim": 8, "encoder_ffn_dim": 128}
    bert = LDMBertModel(LDMBertConfig(vocab_size=50, d_model=32, max_position_embeddings=77, **shape))
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat"]))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    codec = tiny.vae() if first_stage is None else first_stage
    unet = tiny.unet(in_channels=codec.config.latent_channels, out_channels=codec.config.latent_channels)
    return ready(diffusers.LDMTextToImagePipeline(codec, bert, tokenizer, unet, tiny.scheduler()))
