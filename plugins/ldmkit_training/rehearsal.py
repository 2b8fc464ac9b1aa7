"""Every turn's losses of the first batch, once, before anything is written: also of what joins in a later step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ldmkit.data import Dataset
from ldmkit_training.data.batches import Batches
from ldmkit_training.devices import autocast, on_device
from ldmkit_training.observe import networks, undisturbed
from ldmkit_training.recipe import MOST_STEPS, Recipe
from ldmkit_training.stage import Stage
from ldmkit_training.steps import naming


def rehearse(recipe: Recipe, stage: Stage, train: Dataset, accelerator: Any) -> None:
    """Run all turns as in a step after the last phase has begun; weights, buffers, modes and generators stay.

    Raises:
        LdmkitError: whatever a step would raise, of the first batch.
    """
    device, section = accelerator.device, recipe.data.model_copy(update={"workers": 0})
    batches = Batches(
        train, section, seed=recipe.seed, rank=accelerator.process_index, world=accelerator.num_processes,
        accumulate=recipe.accumulate, names=stage.inputs,
    )  # fmt: skip
    batch = on_device(batches.at(0)[0], device)
    turns: dict[str, Any] = dict(stage.turns)
    stage.to(device)
    for turn in turns.values():
        turn.to(device)
    with undisturbed(networks(stage)), _buffers_kept(list(turns.values())), torch.enable_grad():
        for turn in turns.values():
            with autocast(recipe.precision, device), naming(batch):
                turn(batch, MOST_STEPS)


@contextmanager
def _buffers_kept(modules: list[nn.Module]) -> Iterator[None]:
    kept = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)
