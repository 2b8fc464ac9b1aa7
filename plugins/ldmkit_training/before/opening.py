"""A recipe's stage and data, built, opened and checked once: what a run, its plan and its self-check all start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ldmkit import Dataset, Stage
from ldmkit_training.before.preflight import check_ready, checked_data
from ldmkit_training.before.recipe import Recipe, build_stage
from ldmkit_training.data.buckets import in_buckets
from ldmkit_training.data.section import open_data
from ldmkit_training.data.splitting import split


class Opened(NamedTuple):
    """A recipe's stage and data, opened in one process.

    Args:
        stage: the stage with its initial weights, on the CPU.
        train, validation: its data. Rows that the stage does not accept are skipped or were refused, as
            `data.damaged` says; validation is None if nothing is held out.
    """

    stage: Stage
    train: Dataset
    validation: Dataset | None


def open_recipe(recipe: Recipe, folder: Path, accelerator: Any) -> Opened:
    """Build the stage, open the data, and check that they go together; relative paths start from `folder`.

    Raises:
        LdmkitError: any error of the stage, the data sources, `check_ready` and `checked_data`.
    """
    stage = build_stage(recipe, folder)
    train, validation = open_data(recipe.data, folder)
    if recipe.data.held_out is not None:
        train, validation = split(train, recipe.data.held_out, recipe.data.damaged)
    train = in_buckets(train, recipe.data)
    validation = None if validation is None else in_buckets(validation, recipe.data, trained=False)
    check_ready(recipe, stage, train, validation, accelerator.device, processes=accelerator.num_processes)
    return Opened(stage, *checked_data(recipe, stage, train, validation))
