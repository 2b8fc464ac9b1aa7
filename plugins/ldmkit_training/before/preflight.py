"""Checks of a recipe, its stage and its data that run before the run folder is touched."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ldmkit import (
    CompositionError,
    Conditioner,
    Dataset,
    HasDefault,
    InputError,
    LdmkitError,
    Pipeline,
    SpecError,
    Stage,
    Vector,
    check_pictures,
    suggest,
)
from ldmkit.models.abilities import able
from ldmkit.run.inputs import input_name
from ldmkit.run.request import resolve
from ldmkit_training.before.case import Case
from ldmkit_training.before.moving import with_spatial_inputs
from ldmkit_training.before.recipe import Recipe, recipes
from ldmkit_training.before.rows import check_cacheable, checked_rows
from ldmkit_training.before.survey import parsed_rows, said_of_texts
from ldmkit_training.before.without_effect import without_effect
from ldmkit_training.data.batches import Batches
from ldmkit_training.data.leakage import leaked
from ldmkit_training.data.section import renamed_names
from ldmkit_training.data.shapes import said_of_lying, said_of_sizes, said_of_unused
from ldmkit_training.loop.devices import arithmetic, scaler
from ldmkit_training.loop.libraries import LIBRARIES
from ldmkit_training.loop.sharding import is_sharded
from ldmkit_training.stages.denoiser.config import DenoiserConfig
from ldmkit_training.stages.pipeline import PipelineStage, pipeline_in
from ldmkit_training.stages.started import StartedConfig
from ldmkit_training.watch.tracking import check_trackers


def check_ready(
    recipe: Recipe,
    stage: Stage,
    train: Dataset,
    held: Dataset | None,
    device: torch.device,
    *,
    processes: int = 1,
) -> None:
    """Check that a recipe, its stage and its data fit together. Warns of a trained conditioner whose input the data do
    not have, and of keys that cannot take effect.

    Raises:
        SpecError: `precision`, `batch-split`, `no-cache`, `unknown-input`.
        CompositionError: a grid of the defaults or previews that does not fit the process; `unknown-condition`.
        InputError: `unknown-tracker`, `tracker-missing`, `size-multiple`, or unusable previews.
        PluginError: a sampler, grid or guidance that does not exist.
    """
    scaler(recipe.precision, device)
    if (chosen := arithmetic(recipe.precision, device)).slow:
        warnings.warn(f"precision: {chosen.dtype}: {chosen.why}; `precision: auto` is float32 here", stacklevel=2)
    batches = Batches(
        train, recipe.data, seed=recipe.seed, world=processes, accumulate=recipe.accumulate, names=stage.inputs
    )
    if recipe.data.cache is not None and stage.frozen_codec is None:
        raise SpecError("no-cache", "this stage trains the codec: there are no latents to keep", where="data.cache")
    if recipe.optimiser.type in LIBRARIES and is_sharded(recipe) and processes > 1:
        what = f"{recipe.optimiser.type!r} keeps states that cannot be shared out among processes"
        raise SpecError("sharded-optimiser", what, where="optimiser.type", fits="adamw, adam or sgd; or sharded: false")
    if recipe.checkpoints.best is not None and (held is None or recipe.validation is None):
        what = "the best model is that of the best validation, and nothing is validated"
        fits = "data.validation or data.held_out, and validation"
        raise SpecError("best-of-nothing", what, where="checkpoints.best", fits=fits)
    if recipe.checkpoints.best is not None and is_sharded(recipe) and processes > 1:
        what = "the best model is not kept where weights are shared out among processes"
        raise SpecError("best-sharded", what, where="checkpoints.best", fits="null, or sharded: false")
    check_trackers(recipe.tracking)
    _check_size(recipe, stage)
    _check_inputs(recipe, stage, train)
    if (pipeline := pipeline_in(stage)) is not None:
        _check_sampling(recipe, pipeline)
    _check_nulls(recipe, stage, train)
    if (said := leaked(recipe.data, train, held)) is not None:
        warnings.warn(said, stacklevel=2)
    for said in said_of_sizes(recipe.data, train) if stage.reads_images else ():
        warnings.warn(said, stacklevel=2)
    if (said := said_of_unused(batches, train, recipe.steps)) is not None:
        warnings.warn(said, stacklevel=2)
    for said in without_effect(Case.of(recipe, stage, train, held, processes)):
        warnings.warn(said, stacklevel=2)


def checked_data(
    recipe: Recipe, stage: Stage, train: Dataset, validation: Dataset | None
) -> tuple[Dataset, Dataset | None]:
    """Both sources as `moving.laid` and `rows.checked_rows` have them; of the validation's, the rows that are used.
    Warns of files that are stretched onto their pictures, of black masks, and of texts that are none."""
    section = recipe.validation
    train = with_spatial_inputs(stage, train, recipe.data)
    if validation is not None:
        validation = with_spatial_inputs(stage, validation, recipe.data)
    if validation is not None and section is not None:
        validation = checked_rows(stage, validation, recipe.data, "data.validation", section.count)
    if recipe.data.cache is not None:
        check_cacheable(train)
    train = checked_rows(stage, train, recipe.data, "data.train")
    mask = stage.mask if isinstance(stage, PipelineStage) else None
    for said in said_of_lying(train, [name for name, new in renamed_names(train, recipe.data).items() if new == mask]):
        warnings.warn(said, stacklevel=2)
    rows = parsed_rows(stage, train, recipe.data)
    own = stage.survey([(row.id, row.parsed) for row in rows]) if isinstance(stage, PipelineStage) else []
    for said in [*said_of_texts(rows), *own]:
        warnings.warn(said, stacklevel=2)
    return train, validation


def _check_size(recipe: Recipe, stage: Stage) -> None:
    if (codec := stage.codec) is None:
        return
    if codec.embeds:
        if recipe.previews is not None:
            what = "the model makes embeddings, which are no pictures to show"
            raise SpecError("no-previews", what, where="previews", fits="null")
        return
    check_pictures(codec.axes, "a training recipe")
    buckets = recipe.data.buckets
    if buckets is not None and buckets.step % codec.multiple:
        what = f"the codec takes pictures whose sides are multiples of {codec.multiple}, not all of {buckets.step}"
        raise InputError("size-multiple", what, where="data.buckets.step", fits=f"a multiple of {codec.multiple}")
    wrong = [side for side in recipe.data.size if side % codec.multiple]
    if wrong:
        what = f"the codec takes pictures whose sides are multiples of {codec.multiple}, not {wrong[0]}"
        near = [max(1, round(side / codec.multiple)) * codec.multiple for side in recipe.data.size]
        raise InputError("size-multiple", what, where="data.size", fits=f"{near}, say")


def _check_inputs(recipe: Recipe, stage: Stage, train: Dataset) -> None:
    for name, new in recipe.data.inputs.items():
        if stage.inputs and new not in stage.inputs:
            what = f"the model has no input {new!r}"
            raise SpecError("unknown-input", what, where=f"data.inputs.{name}", fits=suggest(new, stage.inputs))
    there = set(renamed_names(train, recipe.data).values())
    groups = {name for turn in stage.turns.values() for name in turn.groups()}
    pipeline = pipeline_in(stage)
    if isinstance(stage, PipelineStage) and stage.mask is not None and stage.mask not in there:
        what = f"the loss is masked by the input {stage.mask!r}, which the data do not have"
        raise SpecError("no-mask", what, where="objective.mask.input", fits=suggest(stage.mask, there))
    for name, wire in pipeline.wiring.items() if pipeline is not None else ():
        defaulting = able(pipeline.conditioners[name], HasDefault) is not None
        if name in groups and not defaulting and (read := input_name(name, wire)) not in there:
            warnings.warn(
                f"conditioner {name!r} is trained, and the data have no input {read!r} (they have: "
                f"{', '.join(sorted(there)) or 'none'}): it will see nothing but its null",
                stacklevel=2,
            )


def _check_nulls(recipe: Recipe, stage: Stage, train: Dataset) -> None:
    """Warn unless training sees both a condition and its null; less than one expected row in the whole run counts as
    none."""
    if not isinstance(stage, PipelineStage) or not (rows := recipe.steps * recipe.data.batch):
        return
    there = set(renamed_names(train, recipe.data).values())
    untrained = {
        input_name(name, wire) for name, wire in stage.pipeline.wiring.items()
        if wire.null != "default" or not _is_its_own_null(stage.pipeline.conditioners[name])
    }  # fmt: skip
    shares = {name: share for name, share in stage.drop_rates.items() if name in there & untrained}
    if always := [name for name, share in shares.items() if (1 - share) * rows < 1]:
        what = f"objective.dropout drops {', '.join(map(repr, always))} in every row: the condition is never seen"
        warnings.warn(f"{what} (rates of 0.1, say)", stacklevel=3)
    if isinstance(recipe, DenoiserConfig | StartedConfig) and recipe.model.start is not None:
        return  # a model that is trained further may have learnt its nulls before
    if never := [name for name, share in shares.items() if share * rows < 1]:
        what = f"objective.dropout drops {', '.join(map(repr, never))} in no row: the null in its place is not trained"
        warnings.warn(f"{what}, and a guidance scale other than 1 will draw from it (rates of 0.1, say)", stacklevel=3)


def _is_its_own_null(part: Conditioner) -> bool:
    """Whether a condition has a value even if it is left out (picture sizes), so that there is no null to train."""
    if part.kind != "vector" or not part.has_null:
        return False
    like = Vector(torch.zeros(1, part.dim, device=part.device, dtype=part.dtype))
    return part.null(like) is like


def _check_sampling(recipe: Recipe, pipeline: Pipeline) -> None:
    with _error_paths_below("model.defaults"):
        request = resolve(pipeline.defaults, {})
        request.grid.sigmas(pipeline.process, request.steps)
    section = recipe.previews
    if section is None:
        return
    with _error_paths_below("previews"):
        request = resolve(
            pipeline.defaults, {}, steps=section.steps, sampler=section.sampler, grid=section.grid,
            guidance=section.guidance,
        )  # fmt: skip
        request.grid.sigmas(pipeline.process, request.steps)
        known = {input_name(name, wire) for name, wire in pipeline.wiring.items()}
        for name, _ in getattr(request.guidance, "scales", ()):
            if name not in known:
                what = f"there is no condition {name!r} to scale"
                raise CompositionError("unknown-condition", what, where="guidance", fits=suggest(name, known))


@contextmanager
def _error_paths_below(section: str) -> Iterator[None]:
    try:
        yield
    except LdmkitError as error:
        error.where = f"{section}.{error.where}" if error.where else section
        raise


@contextmanager
def with_recipe_path(recipe: Path) -> Iterator[None]:
    """Inside the block, errors about a recipe's key also name the recipe's file."""
    try:
        yield
    except LdmkitError as error:
        key = re.split(r"[.\[]", error.where or "", maxsplit=1)[0]
        if any(key in found.model_fields for found in recipes().values()):
            error.where = f"{recipe}: {error.where}"
        elif not error.where and error.family in ("spec", "compose", "plugin", "source"):
            error.where = str(recipe)
        raise
