"""The end of a run: final measurements with the weights to be saved, and saving the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import torch

from ldmkit import Batch, Dataset, RunError, Stage, write_json
from ldmkit_training.before.recipe import Recipe, build_stage
from ldmkit_training.data.batches import Batches
from ldmkit_training.loop.best import BEST, NOTE, Best
from ldmkit_training.loop.devices import on_device
from ldmkit_training.loop.digests import digest_of
from ldmkit_training.loop.ema import Ema, averaged_weights
from ldmkit_training.loop.sharding import gathered_all
from ldmkit_training.watch.observe import networks, restored_buffers

FINISHING = 2048
"""Maximum number of pictures passed to `Stage.finish`."""


def measure(stage: Stage, train: Dataset, recipe: Recipe, device: torch.device, most: int = FINISHING) -> None:
    """Let the stage take its final measurements on at most that many pictures, with its current weights."""
    stage.finish(on_device(batch, device) for batch in _some_batches(stage, train, recipe, most))


def check_frozen(stage: Stage, before: Mapping[str, str]) -> None:
    """Check that frozen weights did not change, bit for bit.

    Args:
        before: digests of `stage.frozen` before the first step.

    Raises:
        RunError: `frozen-changed`.
    """
    for name, module in stage.frozen.items():
        if digest_of(module.state_dict()) != before[name]:
            what = f"the weights of {name!r}, which are frozen, are others than before the first step"
            raise RunError("frozen-changed", what, fits="a stage that trains them, or leaves them alone")


def save_best(best: Best, stage: Stage, train: Dataset, recipe: Recipe, device: torch.device, out: Path) -> None:
    """Save the stage as the best so far, in evaluation mode and with the weights swapped in; the final measurements
    taken for it are undone afterwards."""
    with restored_buffers(networks(stage)):
        measure(stage, train, recipe, device)
        stage.save(out / BEST)
    write_json(out / NOTE, best.note)


def save_gathered(stage: Stage, ema: Ema | None, recipe: Recipe, folder: Path, target: Path | None) -> None:
    """Save sharded weights by way of a stage that holds them all; with target None, only contribute this process's
    shards."""
    with averaged_weights(stage, ema):
        full = {name: gathered_all(turn.state_dict()) for name, turn in stage.turns.items()}
    if target is not None:
        alone = build_stage(recipe, folder)
        for name, turn in alone.turns.items():
            turn.load_state_dict(full[name])
        alone.save(target)


def _some_batches(stage: Stage, train: Dataset, recipe: Recipe, most: int) -> Iterator[Batch]:
    whole = Batches(train, recipe.data, seed=recipe.seed, names=stage.inputs)
    for _, parts in islice(whole.steps(0), math.ceil(min(most, len(train)) / recipe.data.batch)):
        yield from parts
