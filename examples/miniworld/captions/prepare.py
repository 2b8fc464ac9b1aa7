"""Pictures of the miniworld with short and long captions of each.

    python examples/miniworld/captions/prepare.py
    ldmkit train examples/miniworld/captions/model.yaml
    python examples/miniworld/captions/measure.py

The pictures lie in data/ beside this file. In metadata.jsonl `short` and `long` are captions, and `mixed` is nineteen
times the long one and once the short one, of which training draws one at each use: DALL-E 3's 95 and 5 %.
"""

from __future__ import annotations

import json
from pathlib import Path

from describing import long, short
from ldmkit_miniworld.world import World
from PIL import Image

COUNT, SIZE = 8000, 32
DATA = Path(__file__).parent / "data"
LONG, SHORT = 19, 1
"""Of twenty uses of a picture."""


def main() -> None:
    """Write the pictures, the first of the split `train`."""
    DATA.mkdir(exist_ok=True)
    world, lines = World(SIZE), []
    for index in range(COUNT):
        picture = world.sample("train", index)
        name = f"{index:05}.png"
        Image.fromarray(picture.image).save(DATA / name, compress_level=1)
        brief, full = short(picture.scene)[0], long(picture.scene)[0]
        row = {"file_name": name, "short": brief, "long": full, "mixed": [full] * LONG + [brief] * SHORT}
        lines.append(json.dumps(row))
    (DATA / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
