"""A tiny pipeline with seeded weights, no matrix of them zero, to train something beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_parts
from ldmkit_miniworld.vocabulary import LAYOUT_CLASSES
from tiny import SIZE

import ldmkit
from ldmkit import Pipeline

UNET = {"channels": 3, "widths": [8, 16], "blocks": 1, "norm_groups": 4, "heads": 2}
UNET |= {"attention": ["none", "cross"], "context_dim": 8, "context_join": "length"}
BOXES = {"n_classes": len(LAYOUT_CLASSES), "dim": 8, "frequencies": 2, "max_objects": 8, "names": list(LAYOUT_CLASSES)}
WORDS = {"vocab_size": 192, "start": 2, "end": 3, "pad": 0}
TEXT = {**WORDS, "dim": 8, "layers": 1, "heads": 2, "head_dim": 4, "max_length": 32}


def pipeline(**changes: Any) -> Pipeline:
    """Text and boxes to pixels of 16x16; `changes` go to the U-Net."""
    import ldmkit_miniworld

    words = tiny_parts.part("conditioner", "ldm-text", TEXT, seed=6)
    words.load_assets(Path(ldmkit_miniworld.__file__).parent / "vocabulary_files")
    return Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.part("denoiser", "unet", {**UNET, **changes}, seed=1),
        process=ldmkit.get("process", "discrete")(),
        conditioners={"text": words, "layout": tiny_parts.part("conditioner", "layout-boxes", BOXES, seed=4)},
        defaults={"size": (SIZE, SIZE), "steps": 2},
    )


def started(folder: Path) -> Path:
    """That pipeline, saved."""
    return Path(pipeline().save(folder))
