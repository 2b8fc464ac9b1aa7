"""Thirty pictures of the miniworld's snow, whose captions call it <tundra>.

    python examples/miniworld/scene/prepare.py
    ldmkit train examples/miniworld/scene/token.yaml

The model has seen snow and knows its words; that <tundra> is snow, it is told by pictures alone.
"""

from __future__ import annotations

import json
import re
from itertools import count, islice
from pathlib import Path

from ldmkit_miniworld.world import World
from PIL import Image

COUNT, SIZE = 30, 64
DATA = Path(__file__).parent / "data"
SNOW = re.compile(r"\b(a |an |the |deep )?(snowy field|winter landscape|snow)\b")
"""How captions call the scene."""


def main() -> None:
    """Write the first pictures of the split `scene` whose captions name the snow."""
    DATA.mkdir(exist_ok=True)
    world = World(SIZE)
    every = (world.sample("scene", index) for index in count())
    lines = []
    for number, picture in enumerate(islice((one for one in every if SNOW.search(one.caption)), COUNT)):
        name = f"{number:02}.png"
        Image.fromarray(picture.image).save(DATA / name)
        lines.append(json.dumps({"file_name": name, "text": SNOW.sub("a <tundra>", picture.caption)}))
    (DATA / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
