"""A tiny model of the world with seeded weights: every input, latents of 16x16, milliseconds a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ldmkit_miniworld
import tiny_parts
from ldmkit_miniworld.vocabulary import CLASSES, LAYOUT_CLASSES, SEMANTIC

import ldmkit

VOCABULARY = Path(ldmkit_miniworld.__file__).parent / "vocabulary_files"
SCALES = {"text": 3.0, "label": 2.0, "layout": 2.0, "semantic": 1.5}


def text() -> Any:
    """Words of the world's captions."""
    words = (VOCABULARY / "vocab.txt").read_text().split("\n")
    count = len([word for word in words if word])
    special = {"start": words.index("[CLS]"), "end": words.index("[SEP]"), "pad": words.index("[PAD]")}
    shape = {"vocab_size": count, "dim": 8, "layers": 1, "heads": 2, "head_dim": 4, "max_length": 32}
    made = tiny_parts.part("conditioner", "ldm-text", shape | special, seed=6)
    made.load_assets(VOCABULARY)
    return made


def conditioner(name: str, **changes: Any) -> Any:
    """One of the four, with the world's labels."""
    if name == "text":
        return text()
    if name == "label":
        names = {"n_classes": len(CLASSES) + 1, "null_class": len(CLASSES), "dim": 8, "names": CLASSES}
        return tiny_parts.part("conditioner", "label", names | changes, seed=3)
    if name == "layout":
        names = {"n_classes": len(LAYOUT_CLASSES), "dim": 8, "frequencies": 2, "max_objects": 12}
        return tiny_parts.part("conditioner", "layout-boxes", names | {"names": LAYOUT_CLASSES} | changes, seed=4)
    return tiny_parts.part(
        "conditioner", "semantic", {"n_classes": len(SEMANTIC), "dim": 3, "stages": 2} | changes, seed=5
    )


def world_model(
    *names: str, codec: str = "kl", size: int = 64, parts: dict[str, Any] | None = None, guided: bool = True
) -> ldmkit.Pipeline:
    """A model with some of the inputs (all of them if none is named)."""
    chosen = names or tuple(SCALES)
    made = {name: (parts or {}).get(name) or conditioner(name) for name in chosen}
    first = tiny_parts.kl_codec() if codec == "kl" else tiny_parts.part("codec", "identity", {})
    extra = {"in_channels": first.channels + 3} if "semantic" in chosen else {}
    scales = {name: scale for name, scale in SCALES.items() if name in chosen}
    guidance = {"type": "per-condition", "config": {"scales": scales}} if guided else {"type": "none"}
    return ldmkit.Pipeline.of(
        codec=first,
        denoiser=tiny_parts.unet(first.channels, **extra),
        process=ldmkit.get("process", "discrete")(),
        conditioners=made,
        defaults={"size": (size, size), "steps": 2, "guidance": guidance},
    )
