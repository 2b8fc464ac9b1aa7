"""`ldmkit train --dry-run`: what a run would do, and the memory and time it takes, measured on one step."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldmkit import (
    Adapter,
    Batch,
    Codec,
    Conditioner,
    Dataset,
    Denoiser,
    Encoded,
    HasDefault,
    Part,
    Perceptual,
    Pipeline,
    Signal,
    Stage,
    part_spec,
)
from ldmkit.contracts.signals import tensors_of
from ldmkit.models.abilities import able
from ldmkit.run.inputs import input_name, with_adapter_drops
from ldmkit_training.before.opening import open_recipe
from ldmkit_training.before.recipe import Recipe
from ldmkit_training.before.rehearsal import rehearse
from ldmkit_training.before.space import STATES
from ldmkit_training.data.batches import Batches, input_names
from ldmkit_training.data.order import passes
from ldmkit_training.data.section import data_notes, mixed_texts
from ldmkit_training.loop.devices import arithmetic, autocast, automatic, on_device, open_accelerator
from ldmkit_training.stages.latents import conditions_size, latent_sides, latents_of
from ldmkit_training.stages.pipeline import PipelineStage, pipeline_in


@dataclass(frozen=True)
class PartLine:
    """A network with its numbers of trained and frozen parameters."""

    name: str
    type: str
    trained: int
    frozen: int


@dataclass(frozen=True)
class WireLine:
    """A conditioner: what it reads, makes and fills. `null` says what stands for it where it is left out; `dropped` is
    the share of rows that train without it; `given` is False where the data have no such input, and the conditioner no
    default: training then sees nothing but its null."""

    conditioner: str
    type: str
    input: str
    kind: str
    dim: int
    slot: str
    null: str
    shape: tuple[int, ...]
    dropped: float | None
    given: bool


@dataclass(frozen=True)
class TrainingPlan:
    """The plan of a run. Bytes and seconds are per process; memory excludes what the libraries themselves use.

    Attributes:
        shapes: tensor shapes of one micro-batch of one process.
        unused: inputs of the data that the model does not read.
        memory: bytes by purpose.
        seconds: time of an optimiser step, of reading its pictures, and of the whole run at that pace; empty if
            nothing was run.
    """

    stage: str
    out: str
    device: str
    processes: int
    precision: str
    samples: int
    held_out: int
    steps: int
    batch: int
    rows: int
    accumulate: int
    epochs: float
    parts: list[PartLine]
    wiring: list[WireLine]
    shapes: dict[str, tuple[int, ...]]
    used: dict[str, str]
    unused: list[str]
    memory: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def make_plan(recipe: Recipe, folder: Path) -> TrainingPlan:
    """The plan of a recipe, measured by running optimiser steps in memory.

    Raises:
        LdmkitError: any error that a run would raise before its first step.
    """
    accelerator = open_accelerator()
    device, world = accelerator.device, accelerator.num_processes
    stage, train, validation = open_recipe(recipe, folder, accelerator)
    rehearse(recipe, stage, train, validation, accelerator, folder)
    stage.to(device)
    for turn in stage.turns.values():
        turn.to(device).train()
    batches = Batches(
        train, recipe.data, seed=recipe.seed, world=world, accumulate=recipe.accumulate, names=stage.inputs
    )
    largest = next(iter(batches.sizes().values()))
    parts, reading = _timed(lambda: batches.at(largest))
    batch = _as_cached(recipe, stage, on_device(parts[0], device))
    trial = _MeasuredSteps(recipe, stage, device)
    activations, stepping = trial.run(batch)
    used = input_names(train, recipe.data, stage.inputs)
    shared, total = len(train), recipe.steps * recipe.data.batch
    step = max(stepping * recipe.accumulate, 0.0)
    return TrainingPlan(
        stage=recipe.stage, out=recipe.out, device=str(device), processes=world,
        precision=arithmetic(recipe.precision, device).dtype,
        samples=shared, held_out=0 if validation is None else len(validation),
        steps=recipe.steps, batch=recipe.data.batch, rows=len(batch.ids), accumulate=recipe.accumulate,
        epochs=total / shared, parts=part_lines(stage), wiring=wire_lines(stage, batch, train, used),
        shapes=_shapes(recipe, stage, batch), used=used,
        unused=sorted(set(train.geometry) - set(used) - mixed_texts(recipe.data)),
        memory=_memory(recipe, stage, activations, parts[0]),
        seconds={"step": step, "reading": reading, "run": max(step, reading) * recipe.steps},
        notes=_notes(recipe, stage, train, validation, device),
    )  # fmt: skip


def part_lines(stage: Stage) -> list[PartLine]:
    """Every network once: parts by name, further networks that a turn trains, and networks that are only read."""
    pipeline, codec = pipeline_in(stage), stage.codec
    named: dict[str, nn.Module] = {}
    if pipeline is not None:
        named = {"codec": pipeline.codec, "denoiser": pipeline.denoiser}
        named |= {**pipeline.conditioners, **pipeline.adapters}
    elif codec is not None:
        named = {"codec": codec}
    named |= {name: module for name, module in stage.frozen.items() if module not in named.values()}
    for name, turn in stage.turns.items():
        children = [child for child in turn.children() if child not in named.values()]
        named |= {name: children[0]} if len(children) == 1 and name not in named else {}
    lines: list[PartLine] = []
    seen: set[int] = set()
    for name, module in {**named, **{f"{name}'s own": turn for name, turn in stage.turns.items()}}.items():
        fresh = [p for p in module.parameters() if id(p) not in seen]
        seen |= {id(p) for p in fresh}
        learns = sum(p.numel() for p in fresh if p.requires_grad)
        if name in named or fresh:
            lines.append(PartLine(name, _type(module), learns, sum(p.numel() for p in fresh) - learns))
    return lines


def wire_lines(stage: Stage, batch: Batch, train: Dataset, used: Mapping[str, str]) -> list[WireLine]:
    """Every conditioner of a stage that trains a denoiser, with its wiring and input."""
    if not isinstance(stage, PipelineStage):
        return []
    pipeline, expected = stage.pipeline, stage.drop_rates
    rows = [{name: value for name, value in row.items() if name != stage.mask} for row in batch.inputs]
    encoded = pipeline.conditioning(rows, size=conditions_size(batch, pipeline.codec), grad=True)
    signals = _encoded_by_conditioner(pipeline, encoded.parts)
    lines = []
    for name, part in pipeline.conditioners.items():
        wire = with_adapter_drops(pipeline.wiring[name], pipeline.parts.routes[name], pipeline.parts)
        key = input_name(name, wire)
        found = signals.get(name)
        shape = () if found is None else tuple(tensors_of(found.signal)[0].shape)
        lines.append(
            WireLine(
                name, _type(part), key, part.kind, part.dim, pipeline.parts.routes[name],
                null_in_words(part, wire.null, None if found is None else found.null), shape,
                expected.get(key), key in used.values() or able(part, HasDefault) is not None,
            )
        )  # fmt: skip
    return lines


def null_in_words(part: Conditioner, wired: str, null: Signal | None) -> str:
    """What replaces a conditioner's signal when its input is left out."""
    if wired == "keep":
        return "never left out"
    if wired == "zero":
        return "zeros"
    if not part.has_null:
        return "none: it is required"
    if null is None:
        return "its own"
    if any(tensor.requires_grad for tensor in tensors_of(null)):
        return "its own, trained"
    return "its own" if any(bool(tensor.any()) for tensor in tensors_of(null)) else "zeros"


def _encoded_by_conditioner(pipeline: Pipeline, encoded: Sequence[Encoded]) -> dict[str, Encoded]:
    """The signal of each conditioner; parts are in the order of the conditioners, without those of adapters that have
    no input."""
    left = list(encoded)
    found: dict[str, Encoded] = {}
    for name in pipeline.conditioners:
        key, slot = input_name(name, pipeline.wiring[name]), pipeline.parts.routes[name]
        if left and (left[0].name, left[0].slot) == (key, slot):
            found[name] = left.pop(0)
    return found


def _as_cached(recipe: Recipe, stage: Stage, batch: Batch) -> Batch:
    """The batch, with cached latents if the recipe caches them."""
    codec = stage.frozen_codec
    if recipe.data.cache is None or codec is None or not stage.reads_images:
        return batch
    return dataclasses.replace(batch, images=None, latents=latents_of(batch, codec, codec.device, sample=False))


class _MeasuredSteps:
    """One optimiser step of every turn, twice: the first warms up and is measured for memory, the second for time."""

    def __init__(self, recipe: Recipe, stage: Stage, device: torch.device) -> None:
        self.recipe, self.stage, self.device = recipe, stage, device
        self.optimisers = {name: recipe.optimiser.build(turn, name) for name, turn in stage.turns.items()}

    def run(self, batch: Batch) -> tuple[int, float]:
        """(bytes that the largest turn keeps between its forward and backward pass, seconds of a step)."""
        saved = _SavedTensors(self.stage)
        with torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda tensor: tensor):
            self._step(batch, saved)
        _, seconds = _timed(lambda: self._step(batch, None), self.device)
        return saved.most, seconds

    def _step(self, batch: Batch, saved: _SavedTensors | None) -> None:
        for name, turn in self.stage.turns.items():
            if saved is not None:
                saved.begin()
            self.optimisers[name].zero_grad(set_to_none=True)
            with autocast(self.recipe.precision, self.device):
                loss = turn(batch, self.recipe.steps)
            loss.total.backward()
            self.optimisers[name].step()


class _SavedTensors:
    """Sums the storages that autograd keeps, each once, parameters excluded."""

    def __init__(self, stage: Stage) -> None:
        modules = [*stage.turns.values(), *stage.frozen.values()]
        self._known = {p.untyped_storage().data_ptr() for module in modules for p in module.parameters()}
        self._seen: set[int] = set()
        self.now = self.most = 0

    def begin(self) -> None:
        """Start a new turn: the previous one has released its tensors."""
        self._seen, self.now = set(self._known), 0

    def keep(self, tensor: Tensor) -> Tensor:
        """Called by autograd for each tensor it saves."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
        return tensor


def _memory(recipe: Recipe, stage: Stage, activations: int, batch: Batch) -> dict[str, int]:
    modules = [*stage.turns.values(), *stage.frozen.values()]
    weights = {id(p): p.numel() * p.element_size() for module in modules for p in module.parameters()}
    trained = {id(p): p.numel() * 4 for turn in stage.turns.values() for p in turn.parameters() if p.requires_grad}
    averaged = sum(p.numel() * 4 for p in stage.averaged.parameters() if p.requires_grad)
    tensors = [t for t in (batch.images, batch.latents, batch.deviation) if t is not None]
    memory = {
        "weights": sum(weights.values()),
        "gradients": sum(trained.values()),
        "optimiser": round(STATES[recipe.optimiser.type] * sum(trained.values())),
        "average": 0 if recipe.ema is None else averaged,
        "activations": activations,
        "batch": sum(t.numel() * t.element_size() for t in tensors),
    }
    return memory | {"total": sum(memory.values())}


def _shapes(recipe: Recipe, stage: Stage, batch: Batch) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    if batch.images is not None:
        shapes["pictures"] = tuple(batch.images.shape)
    codec = stage.codec
    if codec is not None and stage.reads_images:
        shapes["latents"] = (len(batch.ids), codec.channels, *latent_sides(codec, batch.size))
    return shapes


def _notes(recipe: Recipe, stage: Stage, train: Dataset, validation: Dataset | None, device: torch.device) -> list[str]:
    data = data_notes(train, validation)
    said = [*stage.notes, *data, *_cache_notes(recipe, stage, len(train))]
    said += [f"{key}: {_numbered(names)}" for key, names in train.numbering.items()]
    if train.mixture:
        each = passes(recipe.steps * recipe.data.batch, len(train), train.mixture)
        said.append(f"epochs of each source: {', '.join(f'{many:.3g}' for many in each)}")
    return [*automatic(recipe.precision, device), *said]


def _numbered(names: Sequence[str]) -> str:
    """The class of each number; of many classes only the first and the last are shown."""
    words = [f"{number} {name!r}" for number, name in enumerate(names)]
    if len(words) > 12:
        words = [*words[:10], "...", words[-1]]
    return "numbered " + ", ".join(words)


def _cache_notes(recipe: Recipe, stage: Stage, count: int) -> list[str]:
    cache, codec = recipe.data.cache, stage.frozen_codec
    if cache is None or codec is None:
        return []
    height, width = (side // codec.factor for side in recipe.data.size)
    numbers = count * cache.views * codec.channels * height * width * (2 if cache.deviation else 1)
    size = numbers * (4 if cache.dtype == "float32" else 2)
    return [f"latents of {count} samples are kept in {cache.folder}: {size / 2**20:,.0f} MiB at most"]


def _type(module: nn.Module) -> str:
    kinds: dict[str, type] = {
        "codec": Codec, "denoiser": Denoiser, "conditioner": Conditioner, "adapter": Adapter, "perceptual": Perceptual
    }  # fmt: skip
    kind = next((kind for kind, contract in kinds.items() if isinstance(module, contract)), None)
    return type(module).__name__ if kind is None or not isinstance(module, Part) else part_spec(kind, module).type


def _timed(work: Callable[[], Any], device: torch.device | None = None) -> tuple[Any, float]:
    def wait() -> None:
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    began = time.perf_counter()
    result = work()
    wait()
    return result, time.perf_counter() - began
