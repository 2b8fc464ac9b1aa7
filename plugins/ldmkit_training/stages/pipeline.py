"""Stages that train parts of a pipeline: the interface for previews, plans, the probe and the dropout check."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ldmkit import Pipeline, Stage
from ldmkit.files.pictures import read_mask
from ldmkit.models.saving import check_folder
from ldmkit.run.inputs import input_name, parse_rows
from ldmkit_training.stages.denoiser.objective import DenoiserTurn


class PipelineStage(Stage, ABC):
    """A stage whose networks are parts of a pipeline, which it saves whole.

    Attributes:
        pipeline: its modules are the trained ones, as they are now.
        denoising: the turn that trains with noise, whose conditions the probe tries and whose dropout is checked; None
            where the denoiser is not trained on.
    """

    pipeline: Pipeline
    denoising: DenoiserTurn | None = None

    def read(self, pipeline: Pipeline) -> None:
        """Set the pipeline, its codec, and the inputs that its conditioners read."""
        self.pipeline, self.codec = pipeline, pipeline.codec
        self.inputs = frozenset(input_name(name, wire) for name, wire in pipeline.wiring.items())

    @property
    def mask(self) -> str | None:
        """The input that weights errors and is not read by the model; None if there is none."""
        section = None if self.denoising is None else self.denoising.objective.mask
        return None if section is None else section.input

    @property
    def drop_rates(self) -> Mapping[str, float]:
        """Input name -> share of the rows that train without it, of inputs that may be dropped."""
        return {} if self.denoising is None else self.denoising.drop_rates

    def parsed(self, inputs: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        found = dict(inputs)
        own = {} if self.mask is None or self.mask not in found else {self.mask: found.pop(self.mask)}
        masks = {name: read_mask(value, f"{where}.{name}") for name, value in own.items()}
        return {**parse_rows(self.pipeline.parts, self.pipeline.wiring, [found], where)[0], **masks}

    def survey(self, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """What is to be said of the training data as a whole before the first step.

        Args:
            rows: id and parsed inputs of samples, of large sources at equal distances.

        Raises:
            InputError: nothing can be learnt from them.
        """
        return []

    @classmethod
    def check_saved(cls, folder: Path) -> None:
        check_folder(folder)

    def save(self, folder: Path) -> None:
        """The whole pipeline, for `ldmkit.load`."""
        self.pipeline.save(folder)


def pipeline_in(stage: Stage) -> Pipeline | None:
    """The pipeline whose parts a stage trains; None for other stages."""
    return stage.pipeline if isinstance(stage, PipelineStage) else None


def conditions_of(stage: Stage) -> frozenset[str]:
    """The inputs that a stage's model reads: without those that weigh errors alone."""
    mask = stage.mask if isinstance(stage, PipelineStage) else None
    return frozenset(stage.inputs) - {mask}


def denoising_turn(stage: Stage) -> DenoiserTurn | None:
    """The turn of a stage that trains with noise and conditions; None for other stages."""
    return stage.denoising if isinstance(stage, PipelineStage) else None
