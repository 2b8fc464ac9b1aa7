"""Keys that cannot take effect are said, and those that can are not; a new key must be put with one or the other."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import tiny
from ldmkit_training.before.case import Case
from ldmkit_training.before.preflight import check_ready
from ldmkit_training.before.recipe import Recipe, build_stage, read_training_recipe, recipes, write_recipe
from ldmkit_training.before.without_effect import ALWAYS, RULES, without_effect
from ldmkit_training.data.section import open_data
from pydantic import BaseModel
from torch import device


def said(recipe: Recipe, processes: int = 1) -> list[str]:
    """The keys."""
    case = Case.of(recipe, build_stage(recipe, Path()), *open_data(recipe.data, Path()), processes)
    return [line.partition(": ")[0] for line in without_effect(case)]


def models(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for inner in get_args(kind):
        yield from models(inner)


def keys(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[str]:
    """`Class.key` of a model and of all in it, the class being the one that declares the key."""
    seen.add(model)
    for name, field in model.model_fields.items():
        classes = model.__mro__[1:] if issubclass(model, Recipe) else model.__mro__  # put together from named ones
        owner = next(c for c in classes if name in vars(c).get("__annotations__", {}))
        yield f"{owner.__name__}.{name}"
        for inner in models(field.annotation):
            if inner not in seen:
                yield from keys(inner, seen)


def test_every_key_of_every_recipe_is_judged_or_always_acts() -> None:
    walked = {key for recipe in recipes().values() for key in keys(recipe, set())}
    assert not RULES.keys() & ALWAYS, "in both"
    assert walked - RULES.keys() - ALWAYS == set(), "new keys: put each into RULES or ALWAYS"
    assert (RULES.keys() | ALWAYS) - walked == set(), "keys that are no more"


CODEC: list[tuple[list[str], list[str]]] = [  # six steps, four held out, a KL codec of a factor of 4
    ([], []),
    (["objective.discriminator.start=6"], ["objective.discriminator"]),
    (["objective.discriminator.start=5"], []),
    (["data.validation=null"], ["validation"]),
    (["schedule.warmup=7"], ["schedule.warmup"]),
    (["schedule.warmup=6"], ["schedule.type"]),
    (["schedule={type: constant, warmup: 6}"], []),
    (["schedule.warmup=5"], []),
    (["schedule={type: constant, final: 0.1}"], ["schedule.final"]),
    (["schedule={type: linear, final: 0.1}"], []),
    (
        ["schedule={type: ldm-linear, lengths: [3, 3, 9], warmup: [0, 0, 0], start: [1, 1, 1], "
         "peak: [1, 1, 1], floor: [0, 0, 0]}"],
        ["schedule.lengths"],
    ),
    (["optimiser={type: sgd, betas: [0.9, 0.95], eps: 1.0e-6}"], ["optimiser.betas", "optimiser.eps"]),
    (["optimiser={type: sgd, momentum: 0.8}"], []),
    (["optimiser={type: adam, momentum: 0.9}"], ["optimiser.momentum"]),
    (["optimiser={weight_decay: 0, decay: all}"], ["optimiser.decay"]),
    (["optimiser.rates={codec: 1.0e-3}"], []),
    (["optimiser.rates={codec: 1.0e-3, discriminator: 1.0e-3}"], ["optimiser.lr"]),
    (["ema.decay=0.43"], []),
    (["ema.decay=0.44"], ["ema.decay"]),  # (1 + 6) / (10 + 6) = 0.4375
    (["ema={decay: 0.99, warmup: false}"], ["ema.decay"]),  # 0.99 ** 6 = 0.94 of the first weights
    (["ema={decay: 0.69, warmup: false}"], ["ema.decay"]),  # 0.69 ** 6 = 0.108
    (["ema={decay: 0.68, warmup: false}"], []),  # 0.68 ** 6 = 0.099
    (["optimiser={lr: 0.1, weight_decay: 10}"], ["optimiser.weight_decay"]),  # times 1 - 0.1 * 10 = 0
    (["optimiser={lr: 0.1, weight_decay: 9.9}"], []),
    (["optimiser={lr: 0.01, weight_decay: 10, rates: {discriminator: 0.1}}"], ["optimiser.weight_decay"]),
    (["optimiser={type: sgd, lr: 0.1, weight_decay: 10}"], ["optimiser.weight_decay"]),
    (["optimiser={type: adam, lr: 0.1, weight_decay: 10}"], []),
    (["schedule={type: ldm-linear, lengths: [9], warmup: [7], start: [0], peak: [1], floor: [1]}"],
     ["schedule.warmup"]),
    (["schedule={type: ldm-linear, lengths: [9], warmup: [6], start: [0], peak: [100], floor: [1]}",
      "optimiser={lr: 0.001, weight_decay: 10}"], ["optimiser.weight_decay"]),
    (["checkpoints.every=7", "validation.every=7", "tracking.every=7"],
     ["checkpoints.every", "validation.every", "tracking.every"]),
    (["previews={every: 7, count: 4}"], ["previews.every"]),
    (["previews={every: 6, count: 5}"], ["previews.count"]),
    (["previews={steps: 3, guidance: 2.0, seed: 1, sampler: {type: heun}, grid: {type: karras}}"],
     [f"previews.{key}" for key in ("steps", "seed", "guidance", "sampler", "grid")]),
    (["validation=null"], ["data.validation"]),
    (["validation.count=5"], ["validation.count"]),
    (["tracking.project=mine"], ["tracking.project"]),
    (["tracking={to: [tensorboard], project: mine}"], ["tracking.project"]),
    (["tracking={to: [wandb], project: mine}"], []),
    (["data.crop_scale=[0.4, 0.9]"], ["data.crop_scale"]),
    (["data.crop_scale=[0.4, 0.9]", "data.fit=random-crop"], []),
    (["data.inputs={text: caption}"], ["data.inputs"]),
    (["data.moves={layout: false}"], ["data.moves"]),
    (["objective.perceptual={type: none, weight: 2.0}"], ["objective.perceptual.weight"]),
    (["objective.perceptual={type: structure, weight: 0}"], []),  # a figure of validation
    (["objective.perceptual={type: structure, weight: 0}", "validation=null", "data.validation=null"],
     ["objective.perceptual.type"]),
    (["objective.kl_weight=1.0e-4"], []),
    (["objective.codebook_weight=2.0"], ["objective.codebook_weight"]),
    (["model={type: vq, config: {widths: [4, 4, 4], norm_groups: 2, blocks: 1, z_channels: 2, mid_attention: none, "
      "codebook_size: 8}}", "objective.kl_weight=1.0e-4", "objective.codebook_weight=2.0"], ["objective.kl_weight"]),
    (["steps=0", "clip=2.0"], ["optimiser", "schedule", "clip", "ema", "precision"]),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "wanted"), CODEC, ids=lambda value: " ".join(value) or "-")
def test_of_a_codecs_recipe(tmp_path: Path, overrides: list[str], wanted: list[str]) -> None:
    found = said(tiny.codec_recipe(tmp_path, *overrides))
    assert sorted(found) == sorted(wanted)


CACHED = "data.cache={folder: cache}"

DENOISER: list[tuple[list[str], list[str]]] = [
    ([], []),
    (["data.moves={semantic: false}"], ["data.moves.semantic"]),
    ([f"{CACHED[:-1]}, views: 3}}"], ["data.cache.views"]),
    ([f"{CACHED[:-1]}, views: 3}}", "data.mirror=0.5"], []),
    ([f"{CACHED[:-1]}, deviation: true}}", "objective.posterior=mode"],
     ["data.cache.deviation", "objective.posterior"]),
    ([f"{CACHED[:-1]}, deviation: false}}", "objective.posterior=sample"], ["objective.posterior"]),
    (["objective.posterior=mode"], ["objective.posterior"]),  # an identity codec has none
    (["probe={count: 4, alone: true}"], ["probe.alone"]),  # one condition
    (["probe={count: 5}"], ["probe.count"]),
    (["probe={count: 4, every: 9}"], ["probe.every"]),
    (["objective.simple=0", "objective.elbo=1.0", "objective.weighting={type: min-snr}"], ["objective.weighting"]),
    (["objective.weighting={type: min-snr}"], []),
    (["objective.logvar={init: 0.0}"], ["objective.logvar"]),
    (["objective.logvar={init: 1.0}"], []),
    (["objective.dropout={none: 1.0, rates: {label: 0.1}}"], ["objective.dropout.rates"]),
    (["objective.dropout={alone: {label: 0.5}}"], []),
    (["model.conditioners.label.input=kind", "objective.dropout={rates: {kind: 0.1}}"],
     ["objective.dropout.rates.kind"]),
    (["sharded=true"], ["sharded"]),
    (["model.codec.config={}"], []),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "wanted"), DENOISER, ids=lambda value: " ".join(value) or "-")
def test_of_a_denoisers_recipe(tmp_path: Path, overrides: list[str], wanted: list[str]) -> None:
    found = said(tiny.denoiser_recipe(tmp_path, *overrides))
    assert sorted(found) == sorted(wanted)


def test_shared_out_weights_of_two_processes_act(tmp_path: Path) -> None:
    assert said(tiny.denoiser_recipe(tmp_path, "sharded=true"), processes=2) == []


def test_a_recipe_that_a_run_wrote_says_nothing_of_its_defaults(tmp_path: Path) -> None:
    """The run's own file holds all defaults: those that have nothing to act on are nobody's words."""
    quiet = tiny.codec_recipe(tmp_path, "data.validation=null", "validation.every=1000")
    write_recipe(tiny.parse_recipe(quiet.model_dump(mode="json") | {"validation": {}}), tmp_path / "recipe.yaml")
    assert said(read_training_recipe(tmp_path / "recipe.yaml")) == []
    assert said(read_training_recipe(tmp_path / "recipe.yaml", ["optimiser.momentum=0.5"])) == ["optimiser.momentum"]


def test_they_are_warnings_before_a_run(tmp_path: Path) -> None:
    recipe = tiny.codec_recipe(tmp_path, "optimiser.momentum=0.5")
    train, held = open_data(recipe.data, Path())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_ready(recipe, build_stage(recipe, Path()), train, held, device("cpu"))
    assert "optimiser.momentum: adamw takes `betas`" in [str(one.message) for one in caught]
