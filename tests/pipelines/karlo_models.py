"""Tiny Karlos of the oracle library: the pipelines of texts and of variations, saved as folders."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import PriorTransformer, UnCLIPScheduler, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.deprecated.unclip import UnCLIPImageVariationPipeline, UnCLIPPipeline
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from tiny_diffusers import text_model, tokenizer
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

DIM = 32


def varied(net: Any, seed: int, scale: float = 0.3) -> Any:
    """No part silent: parameters that begin as zeros get numbers, and every norm's weight differs from 1."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.abs().max() == 0 or (parameter.ndim == 1 and bool((parameter == 1).all())):
            parameter.data += scale * noise
    return net.eval()


def prior() -> PriorTransformer:
    torch.manual_seed(1)
    net = PriorTransformer(num_attention_heads=2, attention_head_dim=12, embedding_dim=DIM, num_layers=2)
    net = varied(net, 2)
    net.clip_std.data = net.clip_std.data.abs() + 0.5
    return net


def decoder(**changes: Any) -> UNet2DConditionModel:
    torch.manual_seed(3)
    fields: dict[str, Any] = {
        "sample_size": 16, "in_channels": 3, "out_channels": 6, "layers_per_block": 1, "block_out_channels": (32, 64),
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "cross_attention_dim": 24, "attention_head_dim": 4,
        "resnet_time_scale_shift": "scale_shift", "class_embed_type": "identity",
    }  # fmt: skip
    return varied(UNet2DConditionModel(**{**fields, **changes}), 4)


def text_proj(**changes: Any) -> UnCLIPTextProjModel:
    torch.manual_seed(5)
    fields = {"clip_embeddings_dim": DIM, "time_embed_dim": 128, "cross_attention_dim": 24}
    return varied(UnCLIPTextProjModel(**{**fields, "clip_extra_context_tokens": 3, **changes}), 6)


def enlarging(seed: int, **changes: Any) -> UNet2DModel:
    torch.manual_seed(seed)
    fields: dict[str, Any] = {
        "sample_size": 32, "in_channels": 6, "out_channels": 3, "layers_per_block": 1, "block_out_channels": (32, 64),
        "down_block_types": ("ResnetDownsampleBlock2D",) * 2, "up_block_types": ("ResnetUpsampleBlock2D",) * 2,
        "add_attention": False,
    }  # fmt: skip
    return varied(UNet2DModel(**{**fields, **changes}), seed)


def common() -> dict[str, Any]:
    torch.manual_seed(7)
    return {
        "text_encoder": text_model(DIM).eval(),
        "tokenizer": tokenizer(),
        "text_proj": text_proj(),
        "decoder": decoder(),
        "super_res_first": enlarging(8),
        "super_res_last": enlarging(9),
        "decoder_scheduler": UnCLIPScheduler(variance_type="learned_range"),
        "super_res_scheduler": UnCLIPScheduler(),
    }


def texts(**changes: Any) -> UnCLIPPipeline:
    scheduler = UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0)
    parts = {"prior": prior(), "prior_scheduler": scheduler, **common()}
    return _quiet(UnCLIPPipeline(**{**parts, **changes}))


def variations(**changes: Any) -> UnCLIPImageVariationPipeline:
    torch.manual_seed(10)
    vision = CLIPVisionConfig(
        hidden_size=24, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4, projection_dim=DIM,
        image_size=28, patch_size=14,
    )  # fmt: skip
    parts = {
        "image_encoder": CLIPVisionModelWithProjection(vision).eval(),
        "feature_extractor": CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=28),
        **common(),
    }
    return _quiet(UnCLIPImageVariationPipeline(**{**parts, **changes}))


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe
