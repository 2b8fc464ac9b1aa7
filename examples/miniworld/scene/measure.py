"""Does the word mean the scene? Of pictures of it, the share that the oracle reads as each scene.

python examples/miniworld/scene/measure.py [--token runs/scene/model] [--sheet docs/images/scene.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from ldmkit_drawing.drawings import card
from ldmkit_drawing.sheets import Sheet
from ldmkit_miniworld.oracle import bundled
from ldmkit_miniworld.vocabulary import CLASSES
from torch import Tensor

import ldmkit

TEXTS = ("a {}", "a view of a {} at dusk", "a {} at night", "a tree in a {}", "two people in a {} by day")


def drawn(pipe: ldmkit.Pipeline, word: str, count: int) -> tuple[list[str], Tensor]:
    """Texts, and a picture (3,64,64) in [0,1] of each, seed i for picture i."""
    texts = [TEXTS[i % len(TEXTS)].format(word) for i in range(count)]
    made = [
        pipe(
            [{"text": text} for text in texts[i : i + 16]],
            steps=15,
            seeds=range(i, min(i + 16, count)),
            propose=False,
        ).images
        for i in range(0, count, 16)
    ]
    return texts, torch.cat(made)


def main() -> None:
    """Print the share of each scene, and write the sheet."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--token", default="runs/scene/model")
    asked.add_argument("--count", type=int, default=64)
    asked.add_argument("--sheet", type=Path)
    args = asked.parse_args()
    plain, oracle = ldmkit.load("miniworld"), bundled()
    taught = plain.with_embedding(args.token)
    seen: dict[str, Tensor] = {}
    texts: list[str] = []
    print(f"{'':20}" + "".join(f"{scene:>10}" for scene in CLASSES))
    for name, pipe, word in (
        ("another word", plain, "picture"),
        ("<tundra>", taught, "<tundra>"),
        ("a word for it", plain, "snowy field"),
    ):
        texts, seen[name] = drawn(pipe, word, args.count)
        found = list(oracle.read(seen[name]).labels)
        print(f"{name:20}" + "".join(f"{found.count(scene) / args.count:10.2f}" for scene in CLASSES), flush=True)
    if args.sheet is not None:
        sheet = Sheet("A word for a scene", ("text", *seen))
        for i in range(6):
            sheet.row(card(texts[i].replace("snowy field", "...")), *(images[i] for images in seen.values()))
        sheet.save(args.sheet, overwrite=True)


if __name__ == "__main__":
    main()
