"""Preview sheets during training: samples for held-out conditions, always from the same noise, with averaged and with
raw weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ldmkit_drawing.drawings import absent, condition, difference
from ldmkit_drawing.sheets import Cell, Content, Sheet
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from ldmkit import Batch, Codec, PartSpec, Pipeline, Value
from ldmkit.bounds import MAX_STEPS
from ldmkit.run.inputs import input_owners
from ldmkit.run.latents import decode_latents, encode_pictures
from ldmkit_training.stages.pipeline import pipeline_in
from ldmkit_training.watch.observe import EngineView, networks, undisturbed
from ldmkit_training.watch.prompts import Prompt

GAIN = 4.0
"""Amplification of the displayed differences between pictures and their reconstructions."""


class PreviewsSection(Value):
    """
    Args:
        every: steps between two sheets.
        count: number of rows from the first held-out samples (training samples if nothing is held out); with prompts
            the default is 0.
        prompts: conditions of your own, drawn in every preview above those rows; see `Prompt`.
        steps: sampler steps.
        seed: seed of the first row; each further row adds 1.
        guidance: a scale, a scale per condition, or a spec; null: the model's default.
        sampler, grid: null: the model's defaults.
    """

    every: int = Field(default=1000, ge=1)
    count: int = Field(default=8, ge=0, le=256)
    prompts: tuple[Prompt, ...] = Field(default=(), max_length=256)
    steps: int = Field(default=20, ge=1, le=MAX_STEPS)
    seed: int = Field(default=0, ge=0)
    guidance: float | dict[str, float] | PartSpec | None = None
    sampler: PartSpec | None = None
    grid: PartSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _prompts_alone(cls, data: Any) -> Any:
        prompted = isinstance(data, dict) and bool(data.get("prompts"))
        return {**data, "count": 0} if prompted and "count" not in data else data

    @model_validator(mode="after")
    def _something(self) -> PreviewsSection:
        if not self.count and not self.prompts:
            raise ValueError("count: 0 and no prompts: there is nothing to draw (previews: null turns them off)")
        return self


class Previews:
    """Writes previews/step-XXXXXXXX.png, one row per sample.

    Args:
        section: of the recipe.
        batches: held-out batches; the first `section.count` rows are used.
        prompts: batches without pictures, with their seeds; see `prompt_rows`.
    """

    def __init__(
        self,
        section: PreviewsSection,
        batches: Sequence[Batch],
        prompts: Sequence[tuple[Batch, tuple[int, ...]]] = (),
    ) -> None:
        self.section, self.every = section, section.every
        self.rows, self.seeds = [batch for batch, _ in prompts], [seeds for _, seeds in prompts]
        done = 0
        for batch in first_rows(batches, section.count):
            self.rows.append(batch)
            self.seeds.append(tuple(section.seed + done + i for i in range(len(batch.ids))))
            done += len(batch.ids)

    def __call__(self, view: EngineView, step: int) -> None:
        """Write the sheet of optimiser step `step`; weights, modes and generators are left unchanged."""
        with undisturbed(networks(view.stage)):
            sheet = self.sheet(view, step)
        if sheet is None or not view.main:
            return
        folder = view.out / "previews"
        folder.mkdir(exist_ok=True)
        path = sheet.save(folder / f"step-{step:08d}.png", overwrite=True)
        with Image.open(path) as written:
            view.picture("previews", written.convert("RGB"), step)

    def sheet(self, view: EngineView, step: int) -> Sheet | None:
        """The sheet itself; None for a stage that draws nothing (a classifier)."""
        if (pipeline := pipeline_in(view.stage)) is not None:
            return self._samples(view, pipeline, step)
        if (codec := view.stage.trained_codec) is not None:
            return self._reconstructions(view, codec, step)
        return None

    def _samples(self, view: EngineView, pipeline: Pipeline, step: int) -> Sheet:
        owners = input_owners(pipeline.conditioners, pipeline.wiring)
        used = [name for name in owners if any(name in row for batch in self.rows for row in batch.inputs)]
        real = [image for batch in self.rows for image in _real(pipeline.codec, batch)]
        drawn = [(label, self._sampled(pipeline, manner)) for label, manner in _weight_variants(view)]
        section = self.section
        sheet = Sheet(
            f"Step {step}", ("real", *used, *(f"sample, {label}" for label, _ in drawn)),
            note=f"{section.steps} steps, seeds {self._seeds()}, {_guided(section)}",
        )  # fmt: skip
        rows = [
            (row, sample, batch.size)
            for batch in self.rows
            for row, sample in zip(batch.inputs, batch.ids, strict=True)
        ]
        for i, (inputs, sample, size) in enumerate(rows):
            shown = [
                condition(owners[n], _parsed(owners[n], n, inputs), size) if n in inputs else absent() for n in used
            ]
            picture = absent("a prompt") if real[i] is None else real[i]
            sheet.row(Cell(picture, sample), *shown, *(images[i] for _, images in drawn))
        return sheet

    def _seeds(self) -> str:
        seeds = [seed for batch in self.seeds for seed in batch]
        if seeds == list(range(seeds[0], seeds[0] + len(seeds))):
            return f"{seeds[0]} to {seeds[-1]}"
        return ", ".join(map(str, seeds[:8])) + (" ..." if len(seeds) > 8 else "")

    def _sampled(self, pipeline: Pipeline, manner: AbstractContextManager[None]) -> list[Tensor]:
        section, made = self.section, list[Tensor]()
        with manner:
            for batch, seeds in zip(self.rows, self.seeds, strict=True):
                output = pipeline(
                    list(batch.inputs), size=batch.size, seeds=list(seeds), steps=section.steps,
                    guidance=section.guidance, sampler=section.sampler, grid=section.grid,
                )  # fmt: skip
                made.extend(output.images)
        return made

    def _reconstructions(self, view: EngineView, codec: Codec, step: int) -> Sheet:
        made: list[tuple[str, list[Tensor]]] = []
        for label, manner in _weight_variants(view):
            with manner:
                made.append((label, [image for batch in self.rows for image in _reconstructed(codec, batch)]))
        real = [image for batch in self.rows for image in _in_unit_range(batch)]
        heads = [f"reconstruction, {label}" for label, _ in made]
        sheet = Sheet(f"Step {step}", ("picture", *heads, f"difference x{GAIN:g}, {made[0][0]}"))
        ids = [sample for batch in self.rows for sample in batch.ids]
        for i, sample in enumerate(ids):
            cells: list[Content] = [images[i] for _, images in made]
            sheet.row(Cell(real[i], sample), *cells, difference(real[i], made[0][1][i], GAIN))
        return sheet


def first_rows(batches: Sequence[Batch], count: int) -> list[Batch]:
    """The first `count` rows, in batches no larger than they were."""
    kept: list[Batch] = []
    for batch in batches:
        if count <= 0:
            break
        kept.append(batch if len(batch.ids) <= count else head(batch, count))
        count -= len(batch.ids)
    return kept


def head(batch: Batch, count: int) -> Batch:
    """The first rows of a batch."""
    draws = batch.draws
    return Batch(
        ids=batch.ids[:count],
        images=None if batch.images is None else batch.images[:count],
        latents=None if batch.latents is None else batch.latents[:count],
        deviation=None if batch.deviation is None else batch.deviation[:count],
        inputs=batch.inputs[:count],
        size=batch.size,
        draws=type(draws)(draws.seed, draws.step, draws.rows[:count]),
    )


def _weight_variants(view: EngineView) -> list[tuple[str, AbstractContextManager[None]]]:
    """The weights to draw with: averaged ones first, if there are any."""
    raw: tuple[str, AbstractContextManager[None]] = ("raw", nullcontext())
    return [("EMA", view.averaged()), raw] if view.has_average else [raw]


def _in_unit_range(batch: Batch) -> Tensor:
    assert batch.images is not None, "held-out batches have pictures"
    return batch.images.float().cpu().add(1).div(2)


def _real(codec: Codec, batch: Batch) -> Sequence[Tensor | None]:
    if batch.images is not None:
        return list(_in_unit_range(batch))
    if batch.latents is None:
        return [None] * len(batch.ids)
    return list(decode_latents(codec, batch.latents, batch.size).cpu())


def _reconstructed(codec: Codec, batch: Batch) -> Tensor:
    assert batch.images is not None, "held-out batches have pictures"
    return decode_latents(codec, encode_pictures(codec, batch.images), batch.size).cpu()


def _parsed(owner: Any, name: str, inputs: Mapping[str, Any]) -> Any:
    value = inputs[name]
    return value if isinstance(value, str) else owner.parse(value, name)


def _guided(section: PreviewsSection) -> str:
    guidance = section.guidance
    if guidance is None:
        return "the model's own guidance"
    return f"guidance {guidance.type if isinstance(guidance, PartSpec) else guidance}"
