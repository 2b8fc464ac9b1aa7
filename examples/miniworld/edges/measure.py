"""Does the ControlNet follow its hints? Edges of what it draws against its own hint and another's, at every checkpoint.

    python examples/miniworld/edges/measure.py [--run runs/edges] [--count 32] [--sheet docs/images/edges.png]

Agreement is the F score of edge pixels, of which one is found if the other map has one within a pixel (Chebyshev
distance). Texts are given, nothing else. The first line is the model without the ControlNet, the last one the renders
themselves after the codec.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from ldmkit_drawing.drawings import card
from ldmkit_drawing.sheets import Sheet
from ldmkit_miniworld.oracle import as_tensor
from ldmkit_miniworld.world import World, WorldPicture
from ldmkit_training.before.recipe import parse_recipe
from ldmkit_training.loop import checkpoints
from torch import Tensor

import ldmkit

HERE = Path(__file__).parent


def edges(extractor: ldmkit.Extractor, images: Tensor) -> Tensor:
    """(B,3,H,W) in [0,1] -> (B,1,H,W), 1 on edges."""
    return torch.stack([extractor.extract(image.clamp(0, 1) * 2 - 1)[:1] > 0 for image in images]).float()


def agreement(one: Tensor, other: Tensor) -> float:
    """F score of two edge maps (B,1,H,W) with one pixel of tolerance."""
    near_one, near_other = (F.max_pool2d(each, 3, 1, 1) for each in (one, other))
    found = float((one * near_other).sum() / one.sum().clamp_min(1))
    meant = float((other * near_one).sum() / other.sum().clamp_min(1))
    return 2 * found * meant / max(found + meant, 1e-9)


def drawn(pipe: ldmkit.Pipeline, pictures: list[WorldPicture], hints: list[Tensor] | None) -> Tensor:
    """Pictures in [0,1] of the captions, seed i for picture i; hints (3,64,64) in [-1,1]."""
    rows = [{"text": picture.caption} for picture in pictures]
    if hints is not None:
        rows = [row | {"hint": hint} for row, hint in zip(rows, hints, strict=True)]
    made = [
        pipe(rows[i : i + 16], steps=15, seeds=range(i, min(i + 16, len(rows))), propose=False).images
        for i in range(0, len(rows), 16)
    ]
    return torch.cat(made)


def main() -> None:
    """Print a line for each checkpoint, and write the sheet."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--run", type=Path, default=Path("runs/edges"))
    asked.add_argument("--count", type=int, default=32)
    asked.add_argument("--sheet", type=Path)
    args = asked.parse_args()
    recipe = parse_recipe(yaml.safe_load((args.run / "recipe.yaml").read_text()))
    spec = recipe.data.extract["hint"]
    extractor = ldmkit.get("extractor", spec.type)(**spec.config)
    pictures = [World(64).sample("test", i) for i in range(args.count)]
    real = as_tensor([picture.image for picture in pictures])
    hints = [extractor.extract(image * 2 - 1) for image in real]
    right = edges(extractor, real)

    def tell(name: str, images: Tensor) -> None:
        found = edges(extractor, images)
        print(f"{name:24}{agreement(found, right):8.3f}{agreement(found, right.roll(1, 0)):10.3f}", flush=True)

    print(f"{'':24}{'right':>8}{'shuffled':>10}")
    plain = ldmkit.load("miniworld")
    without = drawn(plain, pictures, None)
    tell("without", without)
    stage = recipe.make_stage(HERE)
    images = without
    for folder in sorted((args.run / "checkpoints").glob("step-*")):
        found = checkpoints.read(folder)
        for name, parameter in stage.averaged.named_parameters():
            parameter.data.copy_(found.tensors["ema"][name])
        stage.averaged.eval()
        images = drawn(stage.pipeline, pictures, hints)
        tell(f"step {found.step}", images)
    tell("renders after the codec", plain.decode(plain.encode(real * 2 - 1)))
    if args.sheet is not None:
        sheet = Sheet("Edges", ("text", "hint", "with it", "without"))
        for i in range(6):
            sheet.row(card(pictures[i].caption), (hints[i] + 1) / 2, images[i], without[i])
        sheet.save(args.sheet, overwrite=True)


if __name__ == "__main__":
    main()
