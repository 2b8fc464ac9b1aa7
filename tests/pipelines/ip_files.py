"""IP-Adapter files with seeded weights for tiny pipelines, and diffusers' pipelines with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

SOURCE, WIDTH = 40, 48
"""Widths of the encoder's projected embedding and of its hidden states."""
EDGE, TOKENS = 30, 10
"""Side of its pictures, and tokens of one."""


def encoder(folder: Path, **changes: Any) -> Path:
    """An image encoder as transformers saves it."""
    torch.manual_seed(5)
    fields = {
        "hidden_size": WIDTH, "intermediate_size": 60, "projection_dim": SOURCE, "num_hidden_layers": 3,
        "num_attention_heads": 4, "image_size": EDGE, "patch_size": 10, "hidden_act": "gelu", **changes,
    }  # fmt: skip
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**fields)).eval()
    with torch.no_grad():  # nearly the same for any picture otherwise
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    model.save_pretrained(folder)
    return folder


def picture(seed: int, height: int = 70, width: int = 50, mode: str = "RGB") -> Image.Image:
    """A picture of large patches of colour, with noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 3, 3), dtype=np.uint8)).resize((width, height))
    noisy = np.asarray(coarse) + rng.normal(0, 9, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode)


def mask(seed: int, size: int = 32) -> Image.Image:
    """A rectangle of white on black."""
    rng = np.random.default_rng(seed)
    found = np.zeros((size, size), np.uint8)
    top, left = rng.integers(0, size // 2, 2)
    found[top : top + size // 2 + 3, left : left + size // 2] = 255
    return Image.fromarray(found)


def projection(
    kind: str, dim: int, draw: Any, depth: int = 4, heads: int = 2, tokens: int = 5, width: int = 24
) -> dict[str, Tensor]:
    """The half `image_proj`."""
    if kind == "plain":
        made = {"proj.weight": draw(4 * dim, SOURCE, std=0.3), "proj.bias": draw(4 * dim)}
        return made | {"norm.weight": 1 + draw(dim), "norm.bias": draw(dim)}
    if kind == "full":
        made = {"proj.0.weight": draw(WIDTH, WIDTH, std=0.3), "proj.0.bias": draw(WIDTH)}
        made |= {"proj.2.weight": draw(dim, WIDTH, std=0.3), "proj.2.bias": draw(dim)}
        return made | {"proj.3.weight": 1 + draw(dim), "proj.3.bias": draw(dim)}
    inner = 64 * heads
    made = {
        "latents": draw(1, tokens, width, std=0.5), "proj_in.weight": draw(width, WIDTH, std=0.2),
        "proj_in.bias": draw(width), "proj_out.weight": draw(dim, width, std=0.3), "proj_out.bias": draw(dim),
        "norm_out.weight": 1 + draw(dim), "norm_out.bias": draw(dim),
    }  # fmt: skip
    for i in range(depth):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            made |= {f"layers.{i}.{norm}.weight": 1 + draw(width), f"layers.{i}.{norm}.bias": draw(width)}
        made[f"layers.{i}.0.to_q.weight"] = draw(inner, width, std=0.3)
        made[f"layers.{i}.0.to_kv.weight"] = draw(2 * inner, width, std=0.3)
        made[f"layers.{i}.0.to_out.weight"] = draw(width, inner, std=0.2)
        made[f"layers.{i}.1.1.weight"] = draw(4 * width, width, std=0.2)
        made[f"layers.{i}.1.3.weight"] = draw(width, 4 * width, std=0.2)
    return made


def adapter(unet: Any, kind: str, seed: int = 0, **shape: Any) -> dict[str, dict[str, Tensor]]:
    """Both halves of a file, as they are published, for a U-Net of diffusers."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*sizes: int, std: float = 0.1) -> Tensor:
        return torch.randn(*sizes, generator=generator) * std

    dim = unet.config.cross_attention_dim
    halves = {"image_proj": projection(kind, dim, draw, **shape), "ip_adapter": {}}
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for i, name in enumerate(names):
        width = unet.get_submodule(name.removesuffix(".processor")).to_q.weight.shape[0]
        for part in ("k", "v"):
            halves["ip_adapter"][f"{2 * i + 1}.to_{part}_ip.weight"] = draw(width, dim, std=0.5)
    return halves


def flat(halves: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{half}.{key}": tensor.contiguous() for half, own in halves.items() for key, tensor in own.items()}


def saved(halves: dict[str, dict[str, Tensor]], path: Path) -> Path:
    """A published file, by its suffix."""
    if path.suffix == ".safetensors":
        save_file(flat(halves), path)
    else:
        torch.save(halves, path)
    return path


def with_adapters(folder: Path, files: Sequence[dict[str, dict[str, Tensor]]], images: Path | None = None) -> Any:
    """diffusers' pipeline with adapters, and an image encoder."""
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet._load_ip_adapter_weights(list(files), low_cpu_mem_usage=False)
    if images is not None:
        pipe.register_modules(
            image_encoder=CLIPVisionModelWithProjection.from_pretrained(images).eval(),
            feature_extractor=CLIPImageProcessorPil(size=EDGE, crop_size=EDGE),
        )
    return pipe
