"""Do long captions in training help? Models of short, long and mixed captions, asked with short and with long prompts.

    python examples/miniworld/captions/measure.py [--runs runs] [--count 128] [--sheet docs/images/captions.png]

Held-out scenes, picture i with seed i. The oracle reads the pictures, enlarged to the 64x64 pixels that it knows: what
of the prompt is there. The last lines are the ends: renders of the scenes after the codec, and against the next scene.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from describing import long, short
from ldmkit_drawing.drawings import card
from ldmkit_drawing.sheets import Sheet
from ldmkit_miniworld.facts import Facts
from ldmkit_miniworld.frechet import frechet
from ldmkit_miniworld.metrics import text_figures
from ldmkit_miniworld.oracle import Oracle, as_tensor, bundled
from ldmkit_miniworld.scene import Scene
from ldmkit_miniworld.world import World
from torch import Tensor

import ldmkit

MODELS, SIZE, BATCH = ("short", "long", "mixed"), 32, 32
PROMPTS = {"short": short, "long": long}
REFERENCES = 1000


def drawn(pipe: ldmkit.Pipeline, prompts: list[str]) -> Tensor:
    """(N,3,32,32) in [0,1], seed i for prompt i."""
    made = []
    for start in range(0, len(prompts), BATCH):
        rows = [{"text": text} for text in prompts[start : start + BATCH]]
        made.append(pipe(rows, seeds=list(range(start, start + len(rows)))).images)
    return torch.cat(made)


def read(oracle: Oracle, images: Tensor, facts: list[Facts], others: Tensor) -> str:
    """Shares of what was asked for, and the distance to renders, as columns."""
    seen = oracle.read(enlarged(images))
    found = text_figures(facts, seen.objects, seen.labels, seen.times)
    shares = (found.objects, found.colours, found.label, found.time, frechet(seen.features, others.numpy()))
    return "".join(f"{'':>9}" if share is None else f"{share:9.3f}" for share in shares)


def enlarged(images: Tensor) -> Tensor:
    """To 64x64, as the oracle wants them."""
    return F.interpolate(images, scale_factor=64 // SIZE, mode="bicubic").clamp(0, 1)


def asked(scenes: list[Scene], kind: str) -> tuple[list[str], list[Facts]]:
    """Prompts of scenes, and what they say."""
    told = [PROMPTS[kind](scene) for scene in scenes]
    return [text for text, _ in told], [facts for _, facts in told]


def main() -> None:
    """Print the table and write the sheet."""
    options = argparse.ArgumentParser()
    options.add_argument("--runs", type=Path, default=Path("runs"))
    options.add_argument("--prefix", default="miniworld-captions-")
    options.add_argument("--count", type=int, default=128)
    options.add_argument("--sheet", type=Path)
    args = options.parse_args()
    pictures, oracle = [World(SIZE).sample("test", i) for i in range(args.count)], bundled()
    scenes, renders = [picture.scene for picture in pictures], as_tensor([picture.image for picture in pictures])
    references = as_tensor([World(SIZE).sample("reference", i).image for i in range(REFERENCES)])
    others = torch.from_numpy(oracle.read(enlarged(references)).features)
    print(
        f"{'model':10}{'prompts':10}" + "".join(f"{n:>9}" for n in ("objects", "colours", "scene", "time", "frechet"))
    )
    made: dict[tuple[str, str], Tensor] = {}
    for name in MODELS:
        pipe = ldmkit.load(args.runs / f"{args.prefix}{name}" / "model")
        for kind in PROMPTS:
            prompts, facts = asked(scenes, kind)
            made[name, kind] = drawn(pipe, prompts)
            print(f"{name:10}{kind:10}" + read(oracle, made[name, kind], facts, others), flush=True)
    through = pipe.decode(pipe.encode(renders * 2 - 1))
    for kind in PROMPTS:
        facts = asked(scenes, kind)[1]
        print(f"{'codec':10}{kind:10}" + read(oracle, through, facts, others))
        print(f"{'others':10}{kind:10}" + read(oracle, through, [*facts[1:], facts[0]], others))
    if args.sheet is not None:
        write_sheet(args.sheet, scenes, made)


def write_sheet(path: Path, scenes: list[Scene], made: dict[tuple[str, str], Tensor]) -> None:
    """Four scenes, a row for each kind of prompt."""
    sheet = Sheet("Trained on short, long and mixed captions", ("prompt", *MODELS))
    for i, kind in ((i, kind) for i in range(4) for kind in PROMPTS):
        sheet.row(card(PROMPTS[kind](scenes[i])[0]), *(made[name, kind][i] for name in MODELS))
    sheet.save(path, overwrite=True)


if __name__ == "__main__":
    main()
