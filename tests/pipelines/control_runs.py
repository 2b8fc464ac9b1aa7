"""Runs of diffusers' pipelines with control networks beside ours: tiny, seeded, from the same start."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import tiny_diffusers as tiny
import torch
from torch import Tensor

from ldmkit.run.noise import Noise

TEXTS = ["the red house", "a bird"]


def hint(height: int = 32, width: int = 32, seed: int = 4) -> np.ndarray[Any, Any]:
    """A colour picture of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def grey(height: int = 32, width: int = 32, seed: int = 4) -> np.ndarray[Any, Any]:
    """A grey one."""
    return np.repeat(hint(height, width, seed)[..., :1], 3, axis=2)


def as_tensor(picture: np.ndarray[Any, Any], channels: int = 3) -> Tensor:
    """What diffusers is given: (1, channels, H, W) in [0, 1]."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None, :channels].float() / 255


def start(seeds: list[int], height: int, width: int, factor: int = 2) -> Tensor:
    """Latents that our run of these seeds starts from, before the scheduler's own scaling."""
    return torch.cat([Noise([seed], (4, height // factor, width // factor))(0, "start") for seed in seeds])


def stirred(module: Any, std: float = 0.2, seed: int = 9) -> Any:
    """A module whose parameters of zeros are random: nothing that it adds is nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return module.eval()


def piped(cls: str, base: Any, **parts: Any) -> Any:
    """A pipeline of diffusers on the components of another."""
    known = {key: part for key, part in base.components.items() if key != "image_encoder"}
    if "Adapter" in cls and "XL" in cls:
        known = dict(base.components)
    more = {} if "XL" in cls else {"requires_safety_checker": False}
    if "XL" in cls:
        known.pop("image_encoder", None)
        known.pop("feature_extractor", None)
    made = getattr(diffusers, cls)(**known, **parts, **more)
    made.set_progress_bar_config(disable=True)
    return made


def far(got: Tensor, want: Tensor) -> float:
    """The largest difference as a part of the largest value."""
    return float((got - want).abs().max() / want.abs().max())


__all__ = ["TEXTS", "as_tensor", "far", "grey", "hint", "piped", "start", "stirred", "tiny"]
