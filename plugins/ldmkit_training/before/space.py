"""Whether a run's checkpoints and model fit on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from ldmkit import Stage
from ldmkit_training.before.recipe import Recipe
from ldmkit_training.loop.libraries import LIBRARIES
from ldmkit_training.loop.runfolder import CHECKPOINTS
from ldmkit_training.watch.observe import networks

STATES = {"adamw": 2.0, "adam": 2.0, "sgd": 1.0, **{name: library.states for name, library in LIBRARIES.items()}}
"""Optimiser type -> numbers of state per parameter."""


def checkpoint_bytes(recipe: Recipe, stage: Stage) -> int:
    """Approximate size of a checkpoint in bytes: weights, optimiser states and the running average."""
    turns = stage.turns.values()
    weights = sum(t.numel() * t.element_size() for turn in turns for t in turn.state_dict().values())
    trained = sum(p.numel() * 4 for turn in turns for p in turn.parameters() if p.requires_grad)
    averaged = sum(p.numel() * 4 for p in stage.averaged.parameters() if p.requires_grad)
    states = round(STATES[recipe.optimiser.type] * trained)
    return weights + states + (averaged if recipe.ema is not None else 0)


def short_of_space(recipe: Recipe, stage: Stage, out: Path) -> str | None:
    """A warning if the run's checkpoints and model do not fit on its disk; None if they do."""
    one = checkpoint_bytes(recipe, stage)
    model = sum({id(p): p.numel() * p.element_size() for n in networks(stage) for p in n.parameters()}.values())
    there = len(list((out / CHECKPOINTS).glob("step-*")))
    # a new checkpoint is complete before the oldest one goes
    wanted = one * max(recipe.checkpoints.keep + 1 - there, 1) + model * (1 if recipe.checkpoints.best is None else 3)
    free = shutil.disk_usage(out).free
    if wanted <= free:
        return None
    kept = f"{recipe.checkpoints.keep} checkpoints of {_size(one)} and one that is being written, and the model"
    return f"{out}: {kept} take {_size(wanted)} more, and {_size(free)} are free: the run will end with a full disk"


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
