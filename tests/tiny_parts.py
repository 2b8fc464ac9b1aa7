"""Tiny real pipelines: every part is one that ships, with seeded random weights; a step takes milliseconds."""

from __future__ import annotations

from typing import Any

import torch

import ldmkit

CLIP = {
    "vocab_size": 50, "width": 16, "layers": 2, "heads": 2, "mlp": 32, "positions": 9, "bos": 47, "eos": 48, "pad": 48,
}  # fmt: skip
"""A text tower of two layers."""
LABELS = 6
NULL_CLASS = 5


def part(kind: str, name: str, config: dict[str, Any], seed: int = 0) -> Any:
    """A module with seeded weights, ready for use."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = ldmkit.get(kind, name)(config)
        for parameter in made.parameters():  # zero-initialised layers would hide what they do
            torch.nn.init.normal_(parameter, std=0.15) if parameter.ndim > 1 else None
    return made.eval().requires_grad_(False)


def kl_codec() -> Any:
    """Factor 4, two latent channels."""
    widths = {"widths": (4, 4, 4), "norm_groups": 2, "blocks": 1, "z_channels": 2, "mid_attention": "none"}
    return part("codec", "kl", widths, seed=1)


def unet(channels: int, context_dim: int | None = 8, **config: Any) -> Any:
    """Two levels, cross-attention on the second."""
    base = {"channels": channels, "widths": (8, 16), "blocks": 1, "norm_groups": 4, "heads": 2}
    if context_dim is not None:
        base |= {"attention": ("none", "cross"), "context_dim": context_dim}
    return part("denoiser", "unet", base | config, seed=2)


def label(**config: Any) -> Any:
    """Six classes, the last of them null."""
    return part("conditioner", "label", {"n_classes": LABELS, "dim": 8, "null_class": NULL_CLASS} | config, seed=3)


def class_pipeline(codec: str = "identity", **defaults: Any) -> ldmkit.Pipeline:
    """Classes to pictures of 8x8 (identity codec) or 16x16 (KL codec of factor 4)."""
    first = kl_codec() if codec == "kl" else part("codec", "identity", {})
    size = (16, 16) if codec == "kl" else (8, 8)
    return ldmkit.Pipeline.of(
        codec=first,
        denoiser=unet(first.channels),
        process=ldmkit.get("process", "discrete")(),
        conditioners={"label": label()},
        defaults={"size": size, "steps": 4} | defaults,
    )


def scene_pipeline() -> ldmkit.Pipeline:
    """A layout (tokens), a class (tokens as well) and a semantic map (plane) over pixels of 8x8."""
    layout = {"n_classes": 4, "dim": 8, "frequencies": 2, "max_objects": 3, "names": ("cat", "dog", "tree", "sky")}
    return ldmkit.Pipeline.of(
        codec=part("codec", "identity", {}),
        denoiser=unet(3, in_channels=8),
        process=ldmkit.get("process", "discrete")(),
        conditioners={
            "layout": part("conditioner", "layout-boxes", layout, seed=4),
            "label": label(),
            "semantic": part("conditioner", "semantic", {"n_classes": 5, "dim": None, "stages": 0}, seed=5),
        },
        defaults={"size": (8, 8), "steps": 3},
    )
