"""Does a model draw what it is asked for? Pictures from held-out conditions, read back by the oracle."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldmkit import InputError, Pipeline
from ldmkit.run.estimate import check_estimate
from ldmkit.run.prepared import Prepared
from ldmkit_miniworld.asking import (
    Conditions,
    asked_sets,
    guidance_of,
    inputs_of,
    modalities_of,
    picture_size,
    proposed_inputs,
    required,
)
from ldmkit_miniworld.frechet import diversity, frechet
from ldmkit_miniworld.metrics import accuracy, layout_figures, mean_overlap, text_figures
from ldmkit_miniworld.oracle import Oracle, Reading, as_tensor, bundled
from ldmkit_miniworld.oracle_accuracy import layout_of
from ldmkit_miniworld.oracle_network import SIDE
from ldmkit_miniworld.report import EvalReport, Figures, Row
from ldmkit_miniworld.world import World, WorldPicture

BATCH, REFERENCES = 16, 1000
OTHERS = "reference"
"""The split of the renders that Frechet distances are measured to."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many pictures of it are done, and how many there are."""
Keep = Callable[[str, Tensor], None]
"""Called with the name of a set of pictures, and them: (N,3,H,W) in [0,1]."""


@dataclass(frozen=True)
class How:
    """How pictures are drawn; None: as the model does it by itself. Picture i has seed `seed + i`.

    Args:
        steps, sampler, grid, guidance: as in a call of the pipeline.
        plan: of execution, see `Pipeline.planned`.
        batch: pictures at once; it changes the speed, not what is drawn.
        propose: whether the model may make up inputs that it is not given, where it can.
        allow_large: draw what the machine has no memory for by the estimate, or what looks like a mistake.
    """

    steps: int | None = None
    sampler: Any = None
    grid: Any = None
    guidance: Any = None
    seed: int = 0
    plan: str = "eager"
    batch: int = BATCH
    propose: bool = True
    allow_large: bool = False


@dataclass(frozen=True)
class Judge:
    """What pictures are held against.

    Args:
        asked: the world's pictures (64x64) whose conditions are asked for, one for each picture to be judged.
        references: (M, features) of other renders.
        oracle: what reads the pictures.
    """

    asked: tuple[WorldPicture, ...]
    references: np.ndarray
    oracle: Oracle

    def figures(self, images: Tensor | Reading, conditions: Sequence[str]) -> Figures:
        """Figures of pictures (N,3,H,W) in [0,1], or of what was read in them, for these conditions."""
        seen = images if isinstance(images, Reading) else self.oracle.read(images)
        facts = [picture.scene.caption_facts for picture in self.asked]
        maps = np.stack([picture.semantic for picture in self.asked])
        given = set(conditions)
        return Figures(
            text=text_figures(facts, seen.objects, seen.labels, seen.times) if "text" in given else None,
            label=accuracy([picture.label for picture in self.asked], seen.labels) if "label" in given else None,
            layout=layout_figures([layout_of(p) for p in self.asked], seen.objects) if "layout" in given else None,
            semantic=mean_overlap(maps, seen.semantic) if "semantic" in given else None,
            frechet=frechet(seen.features, self.references),
            diversity=diversity(seen.features),
        )

    def shifted(self) -> Judge:
        """The same with the conditions of the next picture: the floor."""
        return Judge((*self.asked[1:], self.asked[0]), self.references, self.oracle)


def evaluate(
    pipe: Pipeline,
    world: World | None = None,
    count: int = 256,
    *,
    split: str = "test",
    conditions: str | None = None,
    how: How | None = None,
    references: int = REFERENCES,
    oracle: Oracle | None = None,
    progress: Progress | None = None,
    keep: Keep | None = None,
) -> EvalReport:
    """Draw `count` pictures from each set of conditions, and measure what they show.

    Args:
        world: in the size of the pictures to draw; None: in the model's own.
        split: of the world: what the model was not trained on.
        conditions: see `asking.asked_sets`.
        how: steps, sampler, guidance, seed ...
        references: renders that Frechet distances are measured to.
        oracle: None: the bundled one.
        progress, keep: told of every batch, and given the pictures of every set.

    Raises:
        InputError: `eval-count`, and those of `asking`; what the pipeline raises for its own arguments.
    """
    how, tell, keep = how or How(), progress or _quiet, keep or _quiet
    if min(count, references) < 2 or how.batch < 1:
        what = f"{count} pictures, {references} references, batches of {how.batch}"
        raise InputError("eval-count", what, where="count", fits="two pictures or more, batches of one or more")
    world = world or World(picture_size(pipe))
    picture_size(pipe, world.size)
    taken = modalities_of(pipe)
    sets = asked_sets(conditions, taken, required(pipe, taken))
    running = pipe if how.plan == "eager" else pipe.planned(how.plan)
    # what is wrong with the options is told before anything is drawn
    seeds = range(how.seed, how.seed + min(count, how.batch))
    first = inputs_of(world.sample(split, 0), sets[0])
    prepared = running.prepare(first, seeds=seeds, **_options(pipe, how, sets[0], world))
    request = prepared.request
    _check_work(prepared, count, len(sets), references, how)
    judge, pictures = _judge(world, split, count, references, oracle or bundled(), tell)
    names = tuple(dict.fromkeys(name for chosen in sets for name in chosen))
    renders, codec, shuffled = _ends(running, judge, pictures, names, how.batch, tell, keep)
    rows = []
    for chosen in sets:
        began = time.perf_counter()
        made = drawn(running, pictures, chosen, how, world, tell)
        seconds = round(time.perf_counter() - began, 2)
        rows.append(Row(conditions=chosen, figures=judge.figures(made, chosen), seconds=seconds))
        keep(" + ".join(chosen), made)
    return EvalReport(
        model=str(pipe.origin or "in memory"), split=split, count=count, size=world.size, steps=request.steps,
        sampler=type(request.sampler).__name__, guidance=_in_words(pipe, how.guidance), seed=how.seed, plan=how.plan,
        oracle=judge.oracle.held_out, renders=renders, codec=codec, shuffled=shuffled, rows=tuple(rows),
    )  # fmt: skip


def _ends(
    pipe: Pipeline,
    judge: Judge,
    pictures: Sequence[WorldPicture],
    names: Conditions,
    batch: int,
    tell: Progress,
    keep: Keep,
) -> tuple[Figures, Figures, Figures]:
    """Figures of the world's own pictures, of them after the codec, and of them against others' conditions."""
    images = as_tensor([picture.image for picture in pictures])
    keep("renders", images)
    own = judge.oracle.read(images)
    through = passed(pipe, images, batch, tell)
    keep("codec", through)
    return judge.figures(own, names), judge.figures(through, names), judge.shifted().figures(own, names)


def drawn(
    pipe: Pipeline,
    pictures: Sequence[WorldPicture],
    conditions: Conditions,
    how: How,
    world: World,
    progress: Progress | None = None,
) -> Tensor:
    """(N,3,H,W) in [0,1]: one picture of the model for each picture of the world, from these conditions of it."""
    parts: list[Tensor] = []
    for start in range(0, len(pictures), how.batch):
        inputs = [inputs_of(picture, conditions) for picture in pictures[start : start + how.batch]]
        seeds = [how.seed + start + i for i in range(len(inputs))]
        parts.append(pipe(inputs, seeds=seeds, **_options(pipe, how, conditions, world)).images)
        (progress or _quiet)(" + ".join(conditions), start + len(inputs), len(pictures))
    return torch.cat(parts)


def passed(pipe: Pipeline, images: Tensor, batch: int, progress: Progress | None = None) -> Tensor:
    """Pictures (N,3,H,W) in [0,1] after the model's codec."""
    parts: list[Tensor] = []
    for start in range(0, len(images), batch):
        some = images[start : start + batch]
        latents = pipe.encode(some * 2 - 1)
        parts.append(pipe.decode(latents, (some.shape[-2], some.shape[-1])).cpu())
        (progress or _quiet)("codec", start + len(some), len(images))
    return torch.cat(parts)


def _judge(
    world: World, split: str, count: int, references: int, oracle: Oracle, tell: Progress
) -> tuple[Judge, tuple[WorldPicture, ...]]:
    """Who judges, and the pictures of the world in the size to be drawn."""

    pictures = tuple(world.sample(split, index) for index in range(count))
    small = World(SIDE)
    asked = pictures if world.size == SIDE else tuple(small.sample(split, index) for index in range(count))
    others = []
    for index in range(references):
        others.append(small.sample(OTHERS, index).image)
        tell("renders to compare with", index + 1, references)
    return Judge(asked, oracle.read(as_tensor(others)).features, oracle), pictures


def _check_work(prepared: Prepared, count: int, sets: int, references: int, how: How) -> None:
    """Refuse more pictures than the machine has memory for, or than anyone waits for."""
    side, runs = prepared.size[0], sets * -(-count // how.batch)
    held = 3 * (8 * count * side**2 + 5 * references * SIDE**2)  # in 8 bits and as floats
    check_estimate(prepared.estimate.repeated(runs, held), "count", how.allow_large)


def _options(pipe: Pipeline, how: How, conditions: Conditions, world: World) -> dict[str, Any]:
    made_up = proposed_inputs(pipe) if how.propose else ()
    return {
        "steps": how.steps,
        "sampler": how.sampler,
        "grid": how.grid,
        "guidance": guidance_of(pipe, how.guidance, (*conditions, *made_up)),
        "size": (world.size, world.size),
        "propose": how.propose,
        "allow_large": how.allow_large,
    }


def _in_words(pipe: Pipeline, guidance: Any) -> str:
    """Guidance in words: the one asked for, or the model's own."""
    if guidance is not None and not isinstance(guidance, dict):
        return str(guidance)
    given = guidance or {"type": pipe.defaults.guidance.type, "config": pipe.defaults.guidance.config}
    config = given.get("config", {}) if "type" in given else given
    config = {**config, **config.get("scales", {})} if isinstance(config.get("scales"), dict) else config
    shown = " ".join(f"{name}={value}" for name, value in config.items() if name != "scales")
    return " ".join(word for word in (str(given.get("type", "")), shown) if word)


def _quiet(*_: object) -> None:
    """Nobody listens."""
