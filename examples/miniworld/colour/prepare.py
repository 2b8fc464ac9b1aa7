"""Thirty pictures of the miniworld in which one colour has no name: green, which captions call <moss>.

    python examples/miniworld/colour/prepare.py
    ldmkit train examples/miniworld/colour/token.yaml

The model has seen green things and knows the word; that <moss> is this colour, it is told by pictures alone.
"""

from __future__ import annotations

import json
from itertools import count, islice
from pathlib import Path

from ldmkit_miniworld.world import World
from PIL import Image

COUNT, SIZE = 30, 64
DATA = Path(__file__).parent / "data"


def main() -> None:
    """Write the first pictures of the split `colour` whose captions say green."""
    DATA.mkdir(exist_ok=True)
    world = World(SIZE)
    every = (world.sample("colour", index) for index in count())
    lines = []
    for number, picture in enumerate(islice((one for one in every if " green " in one.caption), COUNT)):
        name = f"{number:02}.png"
        Image.fromarray(picture.image).save(DATA / name)
        lines.append(json.dumps({"file_name": name, "text": picture.caption.replace(" green ", " <moss> ")}))
    (DATA / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
