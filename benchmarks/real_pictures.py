"""What the measurements on real pictures share: held-out data of a recipe, models of its run by step, a sheet."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ldmkit_training.before.recipe import Recipe, build_stage, read_training_recipe
from ldmkit_training.data.batches import validation_batches
from ldmkit_training.data.section import open_data
from ldmkit_training.loop import checkpoints
from ldmkit_training.loop.ema import Ema, averaged_weights
from ldmkit_training.loop.runfolder import CHECKPOINTS, MODEL
from numpy.typing import NDArray
from PIL import Image

import ldmkit
from ldmkit import Batch

Picture = NDArray[np.uint8]
Inputs = list[dict[str, Any]]
BATCH = 16


class Held(NamedTuple):
    """Pictures (H,W,3) and their inputs."""

    pictures: list[Picture]
    inputs: Inputs

    def some(self, number: int | None) -> Held:
        """So many of them, evenly spread; None: all."""
        n = len(self.inputs) if number is None else min(number, len(self.inputs))
        chosen = [i * len(self.inputs) // n for i in range(n)]
        return Held([self.pictures[i] for i in chosen], [self.inputs[i] for i in chosen])

    def others(self) -> Inputs:
        """The inputs of the picture half of the row further on: the control. (The next one of a film is too alike.)"""
        half = len(self.inputs) // 2
        return self.inputs[half:] + self.inputs[:half]


def options(text: str) -> argparse.ArgumentParser:
    """What all of these commands take."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="as of `ldmkit train`")
    parser.add_argument("--training", action="store_true", help="ask for what was trained on, not what was held out")
    parser.add_argument("--number", type=int, help="of held-out pictures, evenly spread; all by default")
    parser.add_argument(
        "--checkpoints", type=int, nargs="*", metavar="STEP", help="measure these too; all if none given"
    )
    parser.add_argument("--guidance", type=float, help="the model's own by default")
    parser.add_argument("--steps", type=int, help="of sampling; the model's own by default")
    parser.add_argument("--out", type=Path, help="sheet of the last model's drawings, beside the real pictures")
    parser.add_argument("--alone", action="store_true", help="leave the real pictures out of the sheet")
    return parser


def opened(given: argparse.Namespace) -> tuple[Recipe, Path]:
    """The recipe, and the folder that its paths start from."""
    torch.set_num_threads(1)
    recipe = read_training_recipe(given.recipe, given.overrides)
    if recipe.stage != "denoiser":
        raise SystemExit(f"{given.recipe} is no denoiser's recipe")
    return recipe, given.recipe.absolute().parent


def held(recipe: Recipe, folder: Path, *, training: bool = False) -> Held:
    """The recipe's validation data (or its training data), centre crops, at the size that the model draws."""
    train, validation = open_data(recipe.data, folder)
    dataset = train if training else validation
    if dataset is None:
        raise SystemExit("the recipe has no validation data")
    batches = validation_batches(dataset, recipe.data, None)
    pictures = [picture for batch in batches for picture in _pictures(batch)]
    return Held(pictures, [dict(row) for batch in batches for row in batch.inputs])


def _pictures(batch: Batch) -> list[Picture]:
    assert batch.images is not None
    return list(batch.images.add(1).mul(127.5).round().byte().movedim(1, -1).numpy())


def models(recipe: Recipe, folder: Path, wanted: Sequence[int] | None) -> Iterator[tuple[int, ldmkit.Pipeline]]:
    """(step, pipeline with averaged weights): of the wanted checkpoints (none named: of all), then the saved model,
    if the run has ended; of the last step there is no other."""
    out = Path(recipe.out)
    found = [] if wanted is None else sorted((out / CHECKPOINTS).glob("step-*"))
    if wanted:
        found = [path for path in found if int(path.name.removeprefix("step-")) in wanted]
    for path in found:
        made = checkpoints.read(path)
        if made.step == recipe.steps:
            continue
        stage = build_stage(recipe, folder)
        for name, turn in stage.turns.items():
            prefix = f"{name}/"
            weights = made.tensors["weights"].items()
            turn.load_state_dict({k.removeprefix(prefix): t for k, t in weights if k.startswith(prefix)})
        assert recipe.ema is not None
        ema = Ema(stage.averaged, recipe.ema)
        ema.restore(made.tensors["ema"], int(made.state["ema_updates"]))
        with averaged_weights(stage, ema):
            yield made.step, stage.pipeline  # type: ignore[attr-defined]
    if (out / MODEL).is_dir() or not found:
        yield recipe.steps, ldmkit.load(out / MODEL)


def draw(pipe: ldmkit.Pipeline, inputs: Inputs, given: argparse.Namespace) -> list[Picture]:
    """One picture for each; the seed is its number."""
    pictures: list[Picture] = []
    for start in range(0, len(inputs), BATCH):
        some = inputs[start : start + BATCH]
        seeds = range(start, start + len(some))
        output = pipe(some, seeds=seeds, guidance=given.guidance, steps=given.steps)
        pictures += [np.asarray(image) for image in output.pil()]
    return pictures


def reconstructed(pipe: ldmkit.Pipeline, pictures: Sequence[Picture]) -> list[Picture]:
    """Through the codec and back: what its drawings could be at best."""
    made: list[Picture] = []
    for start in range(0, len(pictures), BATCH):
        images = torch.from_numpy(np.stack(pictures[start : start + BATCH])).movedim(-1, 1).float().div(127.5).sub(1)
        with torch.no_grad():
            back = pipe.codec.decode(pipe.codec.encode(images))
        made += list(back.clamp(-1, 1).add(1).mul(127.5).round().byte().movedim(1, -1).numpy())
    return made


def measure(
    given: argparse.Namespace,
    score: Callable[[Sequence[Picture], Held], Mapping[str, float]],
    show: Callable[[Picture, Mapping[str, Any]], Sequence[Picture]],
) -> None:
    """Draw, score and print as JSON: photographs, photographs through the codec, and drawings by step.

    Args:
        score: figures of pictures that stand where the held-out ones are asked for.
        show: what a sheet shows of a picture and its inputs.
    """
    recipe, folder = opened(given)
    asked = held(recipe, folder, training=given.training).some(given.number)
    print(json.dumps({"what": "real", "pictures": len(asked.inputs), **score(asked.pictures, asked)}), flush=True)
    drawings: list[Picture] = []
    for number, (step, pipe) in enumerate(models(recipe, folder, given.checkpoints)):
        if number == 0:
            through = score(reconstructed(pipe, asked.pictures), asked)
            print(json.dumps({"what": "real, through the codec", **through}), flush=True)
        began = time.process_time()
        drawings = draw(pipe, asked.inputs, given)
        spent = round(time.process_time() - began, 1)
        print(json.dumps({"what": "drawn", "step": step, **score(drawings, asked), "cpu_s": spent}), flush=True)
    if given.out:
        sheet(asked, drawings, show, alone=given.alone).save(given.out, quality=92)


def sheet(
    asked: Held,
    drawings: Sequence[Picture],
    show: Callable[[Picture, Mapping[str, Any]], Sequence[Picture]],
    *,
    alone: bool = False,
    rows: int = 6,
    columns: int = 2,
) -> Image.Image:
    """Real pictures (unless drawings stand `alone`) and drawings beside each other, each as `show` has them."""
    cells = []
    for real, drawing, inputs in list(zip(asked.pictures, drawings, asked.inputs, strict=True))[: rows * columns]:
        before = [] if alone else show(real, inputs)
        cells.append(np.concatenate([*before, *show(drawing, inputs)], axis=1))
    beside = [
        np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells) // columns * columns, columns)
    ]
    return Image.fromarray(np.concatenate(beside))
