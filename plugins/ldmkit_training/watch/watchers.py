"""Builds the callbacks that a recipe asks for, with their held-out rows."""

from __future__ import annotations

import torch

from ldmkit import Batch, Dataset, Stage
from ldmkit_training.before.recipe import Recipe
from ldmkit_training.data.batches import validation_batches
from ldmkit_training.loop.devices import on_device
from ldmkit_training.watch.observe import Callback
from ldmkit_training.watch.previews import Previews
from ldmkit_training.watch.probe import Probe
from ldmkit_training.watch.probe_section import probe_of


def watchers(
    recipe: Recipe, stage: Stage, train: Dataset, validation: Dataset | None, device: torch.device, start: int = 0
) -> list[Callback]:
    """Previews and the probe, on the first held-out samples (training samples where nothing is held out).

    Args:
        start: optimiser steps that are done.
    """
    made: list[Callback] = []
    probe = probe_of(recipe)
    count = max([section.count for section in (recipe.previews, probe) if section is not None], default=0)
    if count == 0:
        return made
    shown = train if validation is None else validation
    read = validation_batches(shown, recipe.data, count, seed=recipe.seed, names=stage.inputs)
    rows: list[Batch] = [on_device(batch, device) for batch in read]
    if recipe.previews is not None:
        made.append(Previews(recipe.previews, rows))
    if probe is not None:
        made.append(Probe(probe, rows, start=start))
    return made
