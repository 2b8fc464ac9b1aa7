"""Forty pictures of the miniworld as photographic negatives: a style that no picture of the model's training had.

    python examples/miniworld/style/prepare.py
    ldmkit train examples/miniworld/style/lora.yaml
    python examples/miniworld/style/measure.py

The pictures lie in data/ beside this file, with their captions, classes and boxes in metadata.jsonl.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from ldmkit_miniworld.world import World
from PIL import Image

COUNT, SIZE = 40, 64
DATA = Path(__file__).parent / "data"


def styled(image: np.ndarray) -> np.ndarray:
    """The negative of a picture, uint8; the negative of a negative is the picture."""
    return 255 - image


def main() -> None:
    """Write the pictures, numbers 0 to 39 of the split `style`."""
    DATA.mkdir(exist_ok=True)
    lines = []
    for index in range(COUNT):
        picture = World(SIZE).sample("style", index)
        name = f"{index:02}.png"
        Image.fromarray(styled(picture.image)).save(DATA / name)
        row = {"file_name": name, "text": picture.caption, "label": picture.label, "layout": picture.layout}
        lines.append(json.dumps(row))
    (DATA / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
