"""The recipe of a training run: a YAML file whose `stage` selects the keys it may have; unknown keys are errors."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import torch
import yaml
from ldmkit_checkpoints.compvis.yaml_config import read_yaml, yaml_value
from pydantic import Field, TypeAdapter, create_model

from ldmkit import InputError, PluginError, SpecError, Stage, StageSetup, Value, components, get, suggest
from ldmkit.files.json import replacing
from ldmkit_training.bounds import MOST_STEPS
from ldmkit_training.data.section import DataSection
from ldmkit_training.loop.checkpoints import CheckpointsSection
from ldmkit_training.loop.devices import Precision
from ldmkit_training.loop.ema import EmaSection
from ldmkit_training.loop.optimisers import OptimiserSection, Schedule, Warmed
from ldmkit_training.watch.previews import PreviewsSection
from ldmkit_training.watch.tracking import TrackingSection


class ValidationSection(Value):
    """Metrics on held-out data, with the averaged weights.

    Args:
        every: interval in steps.
        count: number of samples of `data.validation` to use: evenly spaced, and the same ones each time.
    """

    every: int = Field(default=1000, ge=1)
    count: int = Field(default=64, ge=1)


class Recipe(Value):
    """The keys that recipes of all stages share.

    Args:
        stage: registered name of the stage to train.
        out: the run folder, relative to the working directory. All other paths are relative to the recipe's folder.
        seed: seed of all random numbers.
        steps: number of optimiser steps of the whole run.
        accumulate: number of micro-batches that a process splits its rows of a step into.
        clip: maximum gradient norm of a turn; null: no clipping.
        ema: running average of the weights; null: none, and the final weights are saved.
        precision: precision of the networks' arithmetic; weights and averages are float32. `auto` is bfloat16 if the
            device has instructions for it, and float32 otherwise; the plan says which, and why.
        validation, previews: null turns them off.
    """

    stage: str
    out: str = Field(min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    steps: int = Field(ge=1, le=MOST_STEPS)
    data: DataSection
    optimiser: OptimiserSection = OptimiserSection()
    schedule: Schedule = Warmed()
    accumulate: int = Field(default=1, ge=1)
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    ema: EmaSection | None = EmaSection()
    precision: Precision = "auto"
    checkpoints: CheckpointsSection = CheckpointsSection()
    validation: ValidationSection | None = ValidationSection()
    previews: PreviewsSection | None = PreviewsSection()
    tracking: TrackingSection = TrackingSection()

    def make_stage(self, folder: Path) -> Stage:
        """The stage that this recipe trains; paths are relative to `folder`.

        Raises:
            LdmkitError: see `ldmkit.Stage.build`.
        """
        return get("stage", self.stage).build(self, StageSetup(folder, self.seed, self.data.size))


def recipe_class(name: str) -> type[Recipe]:
    """The recipe class of a registered stage: the keys common to all recipes, and the stage's own.

    Args:
        name: the value of `stage:` in a recipe; `dist:name` if several distributions have a stage of that name.

    Raises:
        PluginError: no such stage, or one that cannot be used.
    """
    return _composed(get("stage", name), name)


@cache
def _composed(stage: type[Stage], name: str) -> type[Recipe]:
    words = re.split(r"[^A-Za-z0-9]+", name)
    fields: dict[str, Any] = {"stage": (Literal[name], ...)}
    made = "".join(word[:1].upper() + word[1:] for word in words) + "Recipe"
    return create_model(made, __base__=(stage.Config, Recipe), __module__=__name__, __doc__=stage.__doc__, **fields)


def recipes() -> dict[str, type[Recipe]]:
    """Name of every usable stage -> its recipe class. Warns of stages that fail to load."""
    found: dict[str, type[Recipe]] = {}
    for name in components("stage"):
        try:
            found[name] = recipe_class(name)
        except PluginError as error:
            warnings.warn(f"stage {name!r} is left out: {error}", stacklevel=2)
    return found


MAY_CHANGE = (
    *("out", "steps", "checkpoints", "validation", "previews", "probe", "tracking", "precision", "accumulate"),
    *("compile", "gradient_checkpointing", "sharded", "data.validation", "data.workers", "data.cache"),
)
"""Keys that may change when a run is resumed, with all keys below them."""


def read_training_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from its file, with `a.b=value` overrides (values are YAML).

    Raises:
        SourceError: no such file, or invalid YAML, with the line.
        SpecError: unknown or misspelt keys, with their path and a suggestion; invalid values.
        InputError: `override`: an override that is not `key=value`.
    """
    return parse_recipe(overridden(read_yaml(path, bounded=False), overrides), str(path))


def parse_recipe(data: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """A recipe from plain data; raises as `read_recipe` does."""
    stage, names = data.get("stage"), components("stage")
    if "stage" not in data:
        raise SpecError("missing-key", "missing required key", where=f"{where}.stage", fits=" | ".join(names))
    try:
        found = recipe_class(stage) if isinstance(stage, str) else None
    except PluginError as error:
        if error.code != "plugin.unknown":
            raise
        found = None
    if found is None:
        what = f"there is no stage {stage!r}"
        raise SpecError("unknown-stage", what, where=f"{where}.stage", fits=suggest(str(stage), names))
    return found.of(data, where)


def overridden(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Plain data with `a.b=value` overrides applied; a number in a path is a position in a list.

    Raises:
        InputError: `override`.
        SourceError: a value that is not valid YAML.
    """
    changed: Any = _deep_copy(data)
    for override in overrides:
        path, equals, text = override.partition("=")
        steps = path.split(".")
        if not equals or not all(steps):
            raise InputError("override", f"got {override!r}", where="--set", fits="key=value, e.g. optimiser.lr=1e-4")
        node = changed
        for i, step in enumerate(steps[:-1]):
            node = _child(node, step, ".".join(steps[: i + 1]))
        _set(node, steps[-1], yaml_value(text, f"--set {path}"), path)
    return dict(changed)


def _deep_copy(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _deep_copy(value) for key, value in data.items()}
    return [_deep_copy(value) for value in data] if isinstance(data, list) else data


def _child(node: Any, step: str, path: str) -> Any:
    if isinstance(node, list):
        inner = node[_position(node, step, path)]
    else:
        if node.get(step) is None:
            node[step] = {}
        inner = node[step]
    if not isinstance(inner, (dict, list)):
        raise InputError("override", f"{path!r} is {inner!r}, which has nothing below it", where="--set")
    return inner


def _set(node: Any, step: str, value: Any, path: str) -> None:
    if isinstance(node, list):
        node[_position(node, step, path)] = value
    else:
        node[step] = value


def _position(node: list[Any], step: str, path: str) -> int:
    if not (step.isascii() and step.isdecimal() and int(step) < len(node)):
        fits = f"0 to {len(node) - 1}" if node else "an empty list has none"
        raise InputError("override", f"{path!r}: {step!r} is no position in the list", where="--set", fits=fits)
    return int(step)


def schema() -> dict[str, Any]:
    """JSON schema of all recipes."""
    kinds: Any = Annotated[Union[tuple(recipes().values())], Field(discriminator="stage")]  # noqa: UP007
    return TypeAdapter(kinds).json_schema()


def write_recipe(recipe: Recipe, path: Path) -> None:
    """The resolved recipe, including defaults and overrides."""
    with replacing(path) as temporary:
        data = recipe.model_dump(mode="json")
        temporary.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")


def build_stage(recipe: Recipe, folder: Path) -> Stage:
    """The stage with initial weights that depend on the seed only; global generators are left unchanged."""
    state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        random.seed(recipe.seed)
        try:
            stage = recipe.make_stage(folder)
            recipe.optimiser.check(stage.turns)
            return stage
        finally:
            random.setstate(state)
