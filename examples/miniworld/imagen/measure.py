"""What noise-conditioning augmentation buys a cascade: figures of the second stage with and without it.

    python examples/miniworld/imagen/measure.py [--runs runs] [--count 128] [--sheet docs/images/imagen.png]

First on small pictures that are right (renders, made smaller): PSNR of the enlarged ones, beside bicubic interpolation.
Then on what the first stage draws from held-out captions: what the oracle reads in the enlarged pictures, and their
Frechet distance to other renders in its features. The lower that distance, the more the pictures look like the world's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from ldmkit_drawing.drawings import card
from ldmkit_drawing.sheets import Sheet
from ldmkit_miniworld.evaluation import Judge
from ldmkit_miniworld.oracle import as_tensor, bundled
from ldmkit_miniworld.world import World, WorldPicture
from PIL import Image
from torch import Tensor

import ldmkit

LEVELS = (0.0, 0.1, 0.2)
"""Levels of noise that the stage trained with noise is measured at."""
REFERENCES, BATCH = 1000, 16


def smaller(pictures: list[WorldPicture], size: int) -> Tensor:
    """(N,3,size,size) in [0,1], made smaller as training makes the small picture: bicubic with antialiasing."""
    made = [Image.fromarray(p.image).resize((size, size), Image.Resampling.BICUBIC) for p in pictures]
    return as_tensor([np.asarray(picture) for picture in made])


def enlarged(pipe: ldmkit.Pipeline, low: Tensor, level: float) -> Tensor:
    """(N,3,2h,2w) in [0,1] of pictures (N,3,h,w) in [0,1], seed i for picture i."""
    made = []
    for start in range(0, len(low), BATCH):
        rows = [{"low": {"image": picture * 2 - 1, "level": level}} for picture in low[start : start + BATCH]]
        made.append(pipe(rows, seeds=list(range(start, start + len(rows)))).images)
    return torch.cat(made)


def bicubic(low: Tensor) -> Tensor:
    """Twice the size, clipped to [0,1]."""
    return F.interpolate(low, scale_factor=2, mode="bicubic").clamp(0, 1)


def psnr(made: Tensor, wanted: Tensor) -> float:
    """In dB, the mean over the pictures, of values in [0,1]."""
    errors = (made - wanted).square().mean(dim=(1, 2, 3))
    return float((-10 * errors.log10()).mean())


def first_stage(pipe: ldmkit.Pipeline, pictures: list[WorldPicture]) -> Tensor:
    """(N,3,32,32) in [0,1] from the captions, seed i for picture i."""
    made = []
    for start in range(0, len(pictures), BATCH):
        rows = [{"text": picture.caption} for picture in pictures[start : start + BATCH]]
        made.append(pipe(rows, seeds=list(range(start, start + len(rows)))).images)
    return torch.cat(made)


def ways(stages: dict[str, ldmkit.Pipeline], low: Tensor) -> dict[str, Tensor]:
    """Pictures enlarged in every way that is compared, by its name."""
    made = {"bicubic": bicubic(low)}
    if "plain64" in stages:
        made["trained without noise"] = enlarged(stages["plain64"], low, 0.0)
    return made | {f"trained with noise, level {level}": enlarged(stages["up64"], low, level) for level in LEVELS}


def main() -> None:
    """Print the figures and write the sheet."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--runs", type=Path, default=Path("runs"))
    asked.add_argument("--prefix", default="miniworld-imagen-")
    asked.add_argument("--count", type=int, default=128)
    asked.add_argument("--sheet", type=Path)
    args = asked.parse_args()
    folders = {name: args.runs / f"{args.prefix}{name}" / "model" for name in ("base", "up64", "plain64")}
    if not folders["plain64"].exists():
        print(f"left out: trained without noise ({folders.pop('plain64')} is not there)")
    stages = {name: ldmkit.load(folder) for name, folder in folders.items()}
    pictures = [World(64).sample("test", i) for i in range(args.count)]
    oracle, truth = bundled(), as_tensor([picture.image for picture in pictures])
    others = as_tensor([World(64).sample("reference", i).image for i in range(REFERENCES)])
    judge = Judge(tuple(pictures), oracle.read(others).features, oracle)
    print("small pictures of renders: PSNR in dB")
    for name, made in ways(stages, smaller(pictures, 32)).items():
        print(f"  {name:32}{psnr(made, truth):8.2f}", flush=True)
    drawn = first_stage(stages["base"], pictures)
    print(f"small pictures of the first stage\n  {'':32} objects colours   scene    time frechet")
    seen = ways(stages, drawn)
    for name, made in {**seen, "renders": truth}.items():
        figures = judge.figures(made, ["text"])
        shares = (figures.text.objects, figures.text.colours, figures.text.label, figures.text.time, figures.frechet)
        print(f"  {name:32}" + "".join(f"{share:8.2f}" for share in shares), flush=True)
    if args.sheet is not None:
        write_sheet(args.sheet, pictures, drawn, seen)


def write_sheet(path: Path, pictures: list[WorldPicture], drawn: Tensor, seen: dict[str, Tensor]) -> None:
    """Six captions, the first stage's pictures, and what each way makes of them."""
    sheet = Sheet("A pixel cascade: what noise on the small picture buys", ("caption", "32 x 32", *seen))
    for i in range(6):
        sheet.row(card(pictures[i].caption), drawn[i], *(made[i] for made in seen.values()))
    sheet.save(path, overwrite=True)


if __name__ == "__main__":
    main()
