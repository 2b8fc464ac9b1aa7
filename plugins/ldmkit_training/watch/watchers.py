"""Builds the callbacks that a recipe asks for, with their held-out rows."""

from __future__ import annotations

from pathlib import Path

import torch

from ldmkit import Batch, Dataset, Stage
from ldmkit_training.before.recipe import Recipe
from ldmkit_training.data.batches import validation_batches
from ldmkit_training.loop.devices import on_device
from ldmkit_training.stages.pipeline import conditions_of, pipeline_in
from ldmkit_training.watch.observe import Callback
from ldmkit_training.watch.previews import Previews
from ldmkit_training.watch.probe import Probe
from ldmkit_training.watch.probe_section import probe_of
from ldmkit_training.watch.prompts import prompt_rows


def watchers(
    recipe: Recipe,
    stage: Stage,
    train: Dataset,
    validation: Dataset | None,
    device: torch.device,
    start: int = 0,
    folder: Path = Path(),
) -> list[Callback]:
    """Previews and the probe, on the first held-out samples (training samples if nothing is held out).

    Args:
        start: completed optimiser steps.
        folder: the recipe's folder.
    """
    made: list[Callback] = []
    probe = probe_of(recipe)
    count = max([section.count for section in (recipe.previews, probe) if section is not None], default=0)
    rows: list[Batch] = []
    if count:
        shown = train if validation is None else validation
        read = validation_batches(shown, recipe.data, count, seed=recipe.seed, names=conditions_of(stage))
        rows = [on_device(batch, device) for batch in read]
    if recipe.previews is not None:
        made.append(Previews(recipe.previews, rows, previewed(recipe, stage, folder)))
    if probe is not None:
        made.append(Probe(probe, rows, start=start))
    return made


def intervals(recipe: Recipe) -> tuple[int, ...]:
    """The steps between two calls of each callback of a recipe. Every process of a run knows them, though only the main
    one has the callbacks."""
    sections = (recipe.previews, probe_of(recipe))
    return tuple(section.every for section in sections if section is not None)


def previewed(recipe: Recipe, stage: Stage, folder: Path) -> list[tuple[Batch, tuple[int, ...]]]:
    """The previews' prompts as rows, for a stage that draws.

    Raises:
        InputError: inputs that the model does not accept.
    """
    section, pipeline = recipe.previews, pipeline_in(stage)
    if section is None or pipeline is None:
        return []
    rows = prompt_rows(section.prompts, pipeline, recipe.data.size, section.seed, folder)
    inputs = [row for batch, _ in rows for row in batch.inputs]
    for number, row in enumerate(inputs):
        stage.parsed(row, f"previews.prompts[{number}]")
    return rows
