"""Is the style there, and are conditions still obeyed? What the oracle reads, before and after, and a sheet of both.

    python examples/miniworld/style/measure.py [--lora runs/style/model] [--count 32] [--sheet docs/images/style.png]

The oracle has learnt plain renders. It is shown the negatives of the drawn pictures: of pictures in the style it then
reads what stands in them, of plain ones next to nothing. Lines "as drawn" are read without that: how well the model
obeys before it learns the style. The last line is the ceiling: renders in the style, after the codec.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from ldmkit_drawing.drawings import card
from ldmkit_drawing.sheets import Sheet
from ldmkit_miniworld.oracle import Reading, as_tensor, bundled
from ldmkit_miniworld.oracle_accuracy import figures
from ldmkit_miniworld.world import World, WorldPicture
from torch import Tensor

import ldmkit

FIGURES = ("scene", "objects", "colours", "boxes")
"""Shares of what was asked for: scene types, the captions' objects by kind, those with a colour in it, and (where boxes
were given) objects of the right kind and colour that overlap their box by half."""


def drawn(pipe: ldmkit.Pipeline, pictures: list[WorldPicture], names: list[str]) -> Tensor:
    """A picture (3,64,64) in [0,1] of the conditions of each, seed i for picture i."""
    made = []
    for start in range(0, len(pictures), 16):
        part = pictures[start : start + 16]
        known = [{"text": p.caption, "label": p.label, "layout": p.layout} for p in part]
        rows = [{name: row[name] for name in names} for row in known]
        made.append(pipe(rows, steps=15, seeds=list(range(start, start + len(part))), propose=False).images)
    return torch.cat(made)


def shares(reading: Reading, pictures: list[WorldPicture]) -> tuple[float, ...]:
    """The figures, in their order."""
    asked = [
        (seen, one) for seen, p in zip(reading.objects, pictures, strict=True) for one in p.scene.caption_facts.objects
    ]
    kinds = [(seen, one) for seen, one in asked if any(thing.kind == one.kind for thing in seen)]
    coloured = [(seen, one) for seen, one in asked if one.colour is not None]
    right = [any((thing.kind, thing.colour) == (one.kind, one.colour) for thing in seen) for seen, one in coloured]
    found = figures(reading, pictures)
    return (
        found["label_accuracy"], len(kinds) / len(asked), sum(right) / len(right), found["layout_recall50"]
    )  # fmt: skip


def main() -> None:
    """Print the figures and write the sheet."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--lora", default="runs/style/model")
    asked.add_argument("--count", type=int, default=32)
    asked.add_argument("--sheet", type=Path)
    args = asked.parse_args()
    pictures = [World(64).sample("test", i) for i in range(args.count)]
    plain = ldmkit.load("miniworld")
    styled = plain.with_lora(args.lora)
    oracle, seen = bundled(), {}

    def tell(name: str, images: Tensor, negative: bool = True) -> None:
        read = shares(oracle.read(1 - images if negative else images), pictures)
        print(f"{name:32}" + "".join(f"{share:10.2f}" for share in read), flush=True)

    print(" " * 32 + "".join(f"{key:>10}" for key in FIGURES))
    for names in (["text"], ["text", "layout"]):
        for label, pipe in (("without", plain), ("with the LoRA", styled)):
            seen[label, len(names)] = drawn(pipe, pictures, names)
            tell(f"{'+'.join(names)}, {label}", seen[label, len(names)])
        tell(f"{'+'.join(names)}, without, as drawn", seen["without", len(names)], negative=False)
    negatives = 1 - as_tensor([picture.image for picture in pictures])
    tell("renders in the style", negatives)
    tell("... after the codec", plain.decode(plain.encode(negatives * 2 - 1)))
    if args.sheet is not None:
        sheet = Sheet("A style from forty pictures", ("text", "without", "with the LoRA", "text and boxes, with it"))
        for i in range(6):
            cells = (seen["without", 1][i], seen["with the LoRA", 1][i], seen["with the LoRA", 2][i])
            sheet.row(card(pictures[i].caption), *cells)
        sheet.save(args.sheet, overwrite=True)


if __name__ == "__main__":
    main()
