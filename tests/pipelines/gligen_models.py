"""GLIGEN of the oracle library in small, with gates that are open."""

from __future__ import annotations

from typing import Any

import diffusers
import tiny_diffusers as tiny
import torch

GATED = {"attention_type": "gated"}


def opened(unet: Any, seed: int = 7) -> Any:
    """A gated U-Net whose gates and nulls are not the zeros of a new one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "alpha_" in name or "null_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return unet


def gligen(seed: int = 0, scheduler: str = "DDIMScheduler", **changes: Any) -> Any:
    """A pipeline of boxes with phrases; `changes` go to the U-Net."""
    base = tiny.stable_diffusion(seed)
    torch.manual_seed(seed + 1)
    pipe = diffusers.StableDiffusionGLIGENPipeline(
        **{key: value for key, value in base.components.items() if key not in ("image_encoder", "unet", "scheduler")},
        unet=opened(tiny.unet(**GATED, **changes)),
        scheduler=tiny.scheduler(scheduler),
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def boxes(count: int) -> tuple[list[str], list[list[float]]]:
    """Phrases and boxes (x0, y0, x1, y1); some phrases are there twice."""
    words = ["the ball", "a red house", "tree", "blue dog on the hill"]
    corners = [[i / 40, i / 50, 0.3 + i / 50, 0.4 + i / 60] for i in range(count)]
    return [words[i % 4] for i in range(count)], corners


def layout(count: int) -> list[dict[str, Any]]:
    """The same as an input."""
    return [{"label": phrase, "box": box} for phrase, box in zip(*boxes(count), strict=True)]
