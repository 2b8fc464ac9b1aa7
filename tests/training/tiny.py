"""Tiny recipes of real parts: a step takes milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from ldmkit_miniworld.vocabulary import CLASSES
from ldmkit_training.before.recipe import Recipe, overridden, parse_recipe
from ldmkit_training.loop.engine import Engine, Outcome

from ldmkit.models.weights import open_safetensors

SIZE = 16
"""Side of the pictures."""


def world(split: str, count: int) -> dict[str, Any]:
    """Pictures of the miniworld."""
    return {"type": "miniworld", "config": {"split": split, "count": count, "size": 32}}


def base(out: Path) -> dict[str, Any]:
    """What recipes of all stages have in common here: six steps of four pictures, a checkpoint after every second."""
    return {
        "out": str(out),
        "seed": 3,
        "steps": 6,
        "data": {"train": world("train", 24), "validation": world("validation", 4), "size": [SIZE, SIZE], "batch": 4},
        "optimiser": {"lr": 1e-3, "betas": [0.9, 0.99]},
        "schedule": {"type": "cosine", "warmup": 2},
        "ema": {},
        "precision": "float32",  # the same figures on every CPU
        "checkpoints": {"every": 2, "keep": 2},
        "validation": {"every": 3, "count": 4},
        "previews": None,
        "tracking": {"to": [], "every": 1},
    }


def codec_data(out: Path, *overrides: str) -> dict[str, Any]:
    """A KL codec of factor 4 and its discriminator, which joins at step 2."""
    config = {"widths": [4, 4, 4], "norm_groups": 2, "blocks": 1, "z_channels": 2, "mid_attention": "none"}
    adversary = {"start": 2, "width": 8, "layers": 1, "norm": "group"}
    stage = {"stage": "codec", **base(out), "model": {"type": "kl", "config": config}}
    return overridden(stage | {"objective": {"discriminator": adversary}}, overrides)


def denoiser_data(out: Path, *overrides: str) -> dict[str, Any]:
    """Classes to pictures: a U-Net and a table of labels, trained together on pixels."""
    unet = {"channels": 3, "widths": [8, 16], "blocks": 1, "norm_groups": 4, "heads": 2}
    unet |= {"attention": ["none", "cross"], "context_dim": 8}
    label = {"n_classes": len(CLASSES) + 1, "dim": 8, "null_class": len(CLASSES), "names": list(CLASSES)}
    model = {
        "codec": {"type": "identity"},
        "denoiser": {"type": "unet", "config": unet},
        "process": {"type": "discrete", "config": {"prediction": "v"}},
        "conditioners": {"label": {"type": "label", "config": label}},
        "defaults": {"size": [SIZE, SIZE], "steps": 2},
    }
    stage = {"stage": "denoiser", **base(out), "model": model, "probe": None}
    return overridden(stage | {"objective": {"dropout": {"rates": {"label": 0.2}}}}, overrides)


def codec_recipe(out: Path, *overrides: str) -> Recipe:
    """See `codec_data`; overrides as on the command line."""
    return parse_recipe(codec_data(out, *overrides))


def denoiser_recipe(out: Path, *overrides: str) -> Recipe:
    """See `denoiser_data`; overrides as on the command line."""
    return parse_recipe(denoiser_data(out, *overrides))


def train(recipe: Recipe, folder: Path = Path(), *, fresh: bool = False) -> Outcome:
    """A run in this process."""
    return Engine(recipe, folder, fresh=fresh).run()


def write(data: dict[str, Any], path: Path) -> Path:
    """A recipe's file."""
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of every safetensors file below a folder, by file and name."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        lazy = open_safetensors(path)
        found |= {f"{path.relative_to(folder)}/{name}": tensor.read(True) for name, tensor in lazy.items()}
    return found


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert one.keys() == other.keys() and one
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
