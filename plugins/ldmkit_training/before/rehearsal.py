"""Rehearses everything that happens after the first step, on a few rows and before anything is written: all losses,
validation, previews, the probe, final measurements and saving the model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from ldmkit import Dataset, InputError, LdmkitError, Stage, load, load_classifier, load_codec
from ldmkit.models.source import PartFolder, is_native, is_part
from ldmkit.run.request import resolve
from ldmkit_training.before.recipe import Recipe
from ldmkit_training.bounds import MOST_STEPS
from ldmkit_training.data.batches import Batches, validation_batches
from ldmkit_training.loop.best import Best
from ldmkit_training.loop.devices import autocast, on_device
from ldmkit_training.loop.finishing import measure
from ldmkit_training.loop.steps import with_sample_ids
from ldmkit_training.stages.pipeline import conditions_of, denoising_turn, pipeline_in
from ldmkit_training.watch.observe import networks, restored_buffers, undisturbed
from ldmkit_training.watch.previews import Previews, PreviewsSection, head
from ldmkit_training.watch.probe import respond
from ldmkit_training.watch.probe_section import probe_of
from ldmkit_training.watch.watchers import previewed

FEW = 2
"""Rows, and sampler steps, with which validation, previews and the probe are rehearsed."""

SMALL = 64 * 2**20
"""Size of weights in bytes up to which the model is really saved, into the system's temporary folder."""


def rehearse(
    recipe: Recipe, stage: Stage, train: Dataset, held: Dataset | None, accelerator: Any, folder: Path = Path()
) -> None:
    """Run all turns as in a step where every phase has begun; in the main process also validation, previews, the probe
    and the end of the run. Weights, buffers, configs, modes and generators are left unchanged.

    Raises:
        LdmkitError: any error that these raise on the first rows.
    """
    device, section = accelerator.device, recipe.data.model_copy(update={"workers": 0})
    batches = Batches(
        train, section, seed=recipe.seed, rank=accelerator.process_index, world=accelerator.num_processes,
        accumulate=recipe.accumulate, names=stage.inputs,
    )  # fmt: skip
    sizes = batches.sizes()
    shapes = {max(sizes, key=lambda size: size[0] / size[1]), min(sizes, key=lambda size: size[0] / size[1])}
    steps = dict.fromkeys((next(iter(sizes.values())), *(sizes[shape] for shape in shapes)))
    few = [on_device(batches.at(step)[0], device) for step in steps]  # the largest, tallest and widest bucket
    turns: dict[str, Any] = dict(stage.turns)
    stage.to(device)
    for turn in turns.values():
        turn.to(device)
    modules = networks(stage)
    with undisturbed(modules), restored_buffers(modules), torch.enable_grad():
        for turn, batch in product(turns.values(), few):
            with autocast(recipe.precision, device), with_sample_ids(batch):
                turn(batch, MOST_STEPS)
    if accelerator.is_main_process:
        with undisturbed(modules), restored_buffers(modules):
            _validate_and_preview(recipe, stage, train, held, device, folder)
            _measure_and_save(recipe.model_copy(update={"data": section}), stage, train, device, modules)


def _validate_and_preview(
    recipe: Recipe, stage: Stage, train: Dataset, held: Dataset | None, device: torch.device, folder: Path
) -> None:
    """Validation, previews and the probe; all rows of the validation data are read."""
    if held is not None and recipe.validation is not None:
        rows = validation_batches(held, recipe.data, recipe.validation.count, names=stage.inputs)
        figures = stage.validate([on_device(head(rows[0], FEW), device)])
        if recipe.checkpoints.best is not None:
            Best(recipe.checkpoints.best).check(figures)
    probe = probe_of(recipe)
    if recipe.previews is None and probe is None:
        return
    shown = train if held is None else held
    read = validation_batches(shown, recipe.data, FEW, seed=recipe.seed, names=conditions_of(stage))
    few = [on_device(batch, device) for batch in read]
    if recipe.previews is not None:
        prompts = previewed(recipe, stage, folder)
        sheet = Previews(_with_few_steps(recipe.previews, stage), few, prompts[:1]).sheet(_RehearsalView(stage), 0)
        if sheet is not None:
            sheet.render()
    if probe is not None and (turn := denoising_turn(stage)) is not None:
        respond(turn, few, probe)


def _with_few_steps(section: PreviewsSection, stage: Stage) -> PreviewsSection:
    """The section with few rows and steps; its own number of steps is kept if the grid allows no other."""
    pipeline = pipeline_in(stage)
    fewer = section.model_copy(update={"count": min(1, section.count), "steps": min(FEW, section.steps)})
    if pipeline is None:
        return fewer
    try:
        request = resolve(pipeline.defaults, {}, steps=fewer.steps, sampler=section.sampler, grid=section.grid)
        request.grid.sigmas(pipeline.process, request.steps)
    except LdmkitError:
        return fewer.model_copy(update={"steps": section.steps})
    return fewer


def _measure_and_save(
    recipe: Recipe, stage: Stage, train: Dataset, device: torch.device, modules: Sequence[nn.Module]
) -> None:
    """The measurements after the last step, on one batch; models that are small enough are saved, too."""
    try:
        measure(stage, train, recipe, device, most=1)
    except InputError as problem:
        if problem.code != "input.dead-latent":  # common with a few pictures before training
            raise
    weights = {id(p): p.numel() * p.element_size() for module in modules for p in module.parameters()}
    if sum(weights.values()) > SMALL:
        return
    with tempfile.TemporaryDirectory(prefix="ldmkit-rehearsal-") as folder:
        saved = Path(folder) / "model"
        stage.save(saved)
        _load_again(saved, Path(recipe.out) / "model")


def _load_again(saved: Path, named: Path) -> None:
    """Load the saved pipeline or part, since a part may save less than it needs.

    Args:
        named: the folder to name in errors.
    """
    try:
        if is_native(saved):
            load(saved)
        elif is_part(saved):
            {"codec": load_codec, "classifier": load_classifier}[PartFolder(saved).kind](saved)
    except LdmkitError as error:
        error.where = (error.where or str(named)).replace(str(saved), str(named))
        error.what = f"what this run would save does not load: {error.what}"
        raise


class _RehearsalView:
    """The engine as previews see it before the run has begun."""

    out, main, has_average = Path(), True, False

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def averaged(self) -> AbstractContextManager[None]:
        return nullcontext()

    def track(self, figures: Mapping[str, float], step: int) -> None: ...

    def picture(self, name: str, image: Image.Image, step: int) -> None: ...

    def say(self, text: str) -> None: ...
