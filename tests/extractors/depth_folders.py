"""Depth models of transformers with tiny random weights, saved as they are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf

VIT: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


def dpt() -> tuple[Any, Any]:
    config = hf.DPTConfig(
        **VIT, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
        reassemble_factors=[4, 2, 1, 0.5], is_hybrid=False, head_in_index=-1,
    )  # fmt: skip
    return hf.DPTForDepthEstimation(config), hf.DPTImageProcessor(size={"height": 32, "width": 32})


def depth_anything(**options: Any) -> tuple[Any, Any]:
    backbone = hf.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=32, patch_size=8, mlp_ratio=2,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = hf.DepthAnythingConfig(
        backbone_config=backbone, patch_size=8, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8, head_hidden_size=8, **options,
    )  # fmt: skip
    size = {"height": 32, "width": 32}
    return hf.DepthAnythingForDepthEstimation(config), hf.DPTImageProcessor(
        size=size, keep_aspect_ratio=True, ensure_multiple_of=8
    )


def glpn() -> tuple[Any, Any]:
    config = hf.GLPNConfig(
        hidden_sizes=[8, 8, 8, 8], num_attention_heads=[1, 1, 2, 2], depths=[1, 1, 1, 1], decoder_hidden_size=8,
        sr_ratios=[2, 2, 1, 1], mlp_ratios=[2, 2, 2, 2],
    )  # fmt: skip
    return hf.GLPNForDepthEstimation(config), hf.GLPNImageProcessor(size_divisor=32)


def zoe() -> tuple[Any, Any]:
    backbone = hf.BeitConfig(
        **VIT, out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False
    )  # fmt: skip
    config = hf.ZoeDepthConfig(
        backbone_config=backbone, reassemble_factors=[4, 2, 1, 0.5], neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8, bottleneck_features=8, num_attractors=[4, 2, 2, 1], bin_embedding_dim=8,
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}], num_relative_features=8,
    )  # fmt: skip
    return hf.ZoeDepthForDepthEstimation(config), hf.ZoeDepthImageProcessor(size={"height": 32, "width": 32})


def saved(made: tuple[Any, Any], folder: Path, seed: int = 0) -> Path:
    """A model and what prepares its pictures, with seeded weights that do not vanish."""
    model, processor = made
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
