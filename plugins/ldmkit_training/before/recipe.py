"""The recipe of a training run: one YAML file, strict, told apart by its `stage`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from ldmkit_checkpoints.compvis.yaml_config import read_yaml, yaml_value
from pydantic import Field, TypeAdapter

from ldmkit.contracts.value import Value
from ldmkit.errors import InputError, SpecError, suggest
from ldmkit.files.json import replacing
from ldmkit_training.data.section import DataSection
from ldmkit_training.loop.checkpoints import CheckpointsSection
from ldmkit_training.loop.devices import Precision
from ldmkit_training.loop.ema import EmaSection
from ldmkit_training.loop.optimisers import OptimiserSection, Schedule, Warmed
from ldmkit_training.stages.classifier.section import ClassifierObjective, ClassifierSection
from ldmkit_training.stages.codec.section import CodecObjective, CodecSection
from ldmkit_training.stages.denoiser.model import ModelSection
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from ldmkit_training.stages.proposer.section import ProposerSection
from ldmkit_training.stages.stage import Stage
from ldmkit_training.watch.previews import PreviewsSection
from ldmkit_training.watch.probe import ProbeSection
from ldmkit_training.watch.tracking import TrackingSection

MOST_STEPS = 10**12


class ValidationSection(Value):
    """Figures on held-out data, from the averaged weights.

    Args:
        every: steps between two.
        count: samples of `data.validation` that are used, at equal distances, the same ones each time.
    """

    every: int = Field(default=1000, ge=1)
    count: int = Field(default=64, ge=1)


class Recipe(Value):
    """What recipes of all stages have.

    Args:
        stage: which of the recipes it is.
        out: the run folder; relative to the working directory. All other paths start from the recipe's folder.
        seed: of everything that is drawn.
        steps: optimiser steps of the whole run.
        accumulate: parts in which a process works through its rows of a step.
        clip: largest norm of a turn's gradient; null leaves it as it is.
        ema: null keeps no average, and the last weights are saved.
        precision: of the networks' arithmetic; weights and averages are float32. `auto` is bfloat16 where the device
            has instructions for it, and float32 elsewhere; the plan says which, and why.
        validation, previews: null: none.
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
        """The stage that this recipe trains; relative paths start from `folder`."""
        raise NotImplementedError


class CodecRecipe(Recipe):
    """Trains a first stage: the codec in `model`. With `steps: 0` it stays as it is, and only latents are measured."""

    stage: Literal["codec"]
    steps: int = Field(ge=0, le=MOST_STEPS)
    model: CodecSection = CodecSection()
    objective: CodecObjective = CodecObjective()

    def make_stage(self, folder: Path) -> Stage:
        """See `Recipe`."""
        from ldmkit_training.stages.codec.stage import CodecStage

        return CodecStage(self.model, self.objective, folder)


class DenoiserRecipe(Recipe):
    """Trains a second stage: the denoiser in `model`, and those conditioners that are not frozen.

    Args:
        gradient_checkpointing: repeat the blocks' forward pass in the backward one, for less memory.
        compile: compile the denoiser's repeated blocks.
        sharded: with several processes, share weights, averages and optimiser states out among them (FSDP2).
    """

    stage: Literal["denoiser"]
    model: ModelSection
    objective: DenoiserObjective = DenoiserObjective()
    probe: ProbeSection | None = ProbeSection()
    gradient_checkpointing: bool = False
    compile: bool = False
    sharded: bool = False

    def make_stage(self, folder: Path) -> Stage:
        """See `Recipe`."""
        from ldmkit_training.stages.denoiser.stage import DenoiserStage

        return DenoiserStage(
            self.model, self.objective, folder,
            seed=self.seed, size=self.data.size, gradient_checkpointing=self.gradient_checkpointing,
            compile=self.compile,
        )  # fmt: skip


class ClassifierRecipe(Recipe):
    """Trains a classifier of noisy latents, for guidance."""

    stage: Literal["classifier"]
    model: ClassifierSection
    objective: ClassifierObjective = ClassifierObjective()
    previews: None = None

    def make_stage(self, folder: Path) -> Stage:
        """See `Recipe`."""
        from ldmkit_training.stages.classifier.stage import ClassifierStage

        return ClassifierStage(self.model, self.objective, folder)


class ProposerRecipe(Recipe):
    """Trains what makes a condition up where the caller gave none: boxes from a prompt."""

    stage: Literal["proposer"]
    model: ProposerSection
    previews: None = None

    def make_stage(self, folder: Path) -> Stage:
        """See `Recipe`."""
        from ldmkit_training.stages.proposer.stage import ProposerStage

        return ProposerStage(self.model, folder)


RECIPES: dict[str, type[Recipe]] = {
    "codec": CodecRecipe,
    "denoiser": DenoiserRecipe,
    "classifier": ClassifierRecipe,
    "proposer": ProposerRecipe,
}
"""`stage` -> what its recipe may say."""

MAY_CHANGE = (
    *("out", "steps", "checkpoints", "validation", "previews", "probe", "tracking", "precision", "accumulate"),
    *("compile", "gradient_checkpointing", "sharded", "data.validation", "data.workers", "data.cache"),
)
"""Keys (and all below them) that may change when a run is resumed."""


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from its file, with `a.b=value` overrides (values are YAML).

    Raises:
        SourceError: no such file, or no YAML; the line is named.
        SpecError: unknown or misspelt keys with their path and a suggestion; values that do not fit.
        InputError: `override`: one that is no `key=value`.
    """
    return parse_recipe(overridden(read_yaml(path, bounded=False), overrides), str(path))


def parse_recipe(data: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """A recipe from plain data; the errors of `read_recipe`."""
    stage = data.get("stage")
    if "stage" not in data:
        raise SpecError("missing-key", "required, but not given", where=f"{where}.stage", fits=" | ".join(RECIPES))
    if not isinstance(stage, str) or stage not in RECIPES:
        what = f"there is no stage {stage!r}"
        raise SpecError("unknown-stage", what, where=f"{where}.stage", fits=suggest(str(stage), RECIPES))
    return RECIPES[stage].of(data, where)


def overridden(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Plain data with `a.b=value` put in; a number in a path is the position in a list.

    Raises:
        InputError: `override`.
        SourceError: a value that is no YAML.
    """
    changed: Any = _copied(data)
    for override in overrides:
        path, equals, text = override.partition("=")
        steps = path.split(".")
        if not equals or not all(steps):
            raise InputError("override", f"got {override!r}", where="--set", fits="key=value, e.g. optimiser.lr=1e-4")
        node = changed
        for i, step in enumerate(steps[:-1]):
            node = _below(node, step, ".".join(steps[: i + 1]))
        _put(node, steps[-1], yaml_value(text, f"--set {path}"), path)
    return dict(changed)


def _copied(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _copied(value) for key, value in data.items()}
    return [_copied(value) for value in data] if isinstance(data, list) else data


def _below(node: Any, step: str, path: str) -> Any:
    if isinstance(node, list):
        inner = node[_position(node, step, path)]
    else:
        if node.get(step) is None:
            node[step] = {}
        inner = node[step]
    if not isinstance(inner, (dict, list)):
        raise InputError("override", f"{path!r} is {inner!r}, which has nothing below it", where="--set")
    return inner


def _put(node: Any, step: str, value: Any, path: str) -> None:
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
    kinds: Any = Annotated[
        CodecRecipe | DenoiserRecipe | ClassifierRecipe | ProposerRecipe, Field(discriminator="stage")
    ]
    return TypeAdapter(kinds).json_schema()


def write_recipe(recipe: Recipe, path: Path) -> None:
    """The recipe as resolved, defaults and overrides in it."""
    with replacing(path) as temporary:
        data = recipe.model_dump(mode="json")
        temporary.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")


def build_stage(recipe: Recipe, folder: Path) -> Stage:
    """The stage with its first weights, the same for the same seed; global generators are left as they were."""
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
