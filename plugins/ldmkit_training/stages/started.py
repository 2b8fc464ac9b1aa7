"""Stages that train an addition to a frozen pipeline, and save only the addition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field
from torch import nn

from ldmkit import PartSpec, Pipeline, StageSetup, Value, build_value, load
from ldmkit.models.compose import build
from ldmkit.models.saving import check_folder, replacing_folder
from ldmkit_training.before.located import locate_model
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from ldmkit_training.stages.denoising import DenoisingStage
from ldmkit_training.watch.probe_section import Probing


class StartSection(Value):
    """The pipeline to train for: its weights do not change.

    Args:
        start: what `ldmkit.load` takes, or a run's folder; a path is relative to the recipe's folder, or to the working
            directory.
        variant: of the weights, where it is a folder of diffusers.
    """

    start: str = Field(min_length=1)
    variant: str | None = None

    def open(self, folder: Path) -> Pipeline:
        """The pipeline in float32, all of it frozen; paths start from `folder`.

        Raises:
            SourceError, WeightsError: it is missing, or cannot be read.
        """
        found = locate_model(self.start, folder, "model.start")
        pipeline = load(found, dtype="float32", **({} if self.variant is None else {"variant": self.variant}))
        for part in pipeline.parts.items().values():
            part.requires_grad_(False).eval()
        return pipeline


class StartedConfig(Probing):
    """The keys of such stages.

    Args:
        model: the pipeline to train for.
        objective: what is minimised.
        gradient_checkpointing: recompute the blocks' forward pass in the backward pass, which takes less memory.
    """

    model: StartSection
    objective: DenoiserObjective = DenoiserObjective()
    gradient_checkpointing: bool = False


class StartedStage(DenoisingStage, ABC):
    """A stage that trains something beside a pipeline."""

    overfit_share: ClassVar[float] = 0.9

    @abstractmethod
    def __init__(self, config: Any, setup: StageSetup) -> None:
        """From a recipe; opens the pipeline, adds what is trained and calls `set_up`."""

    @classmethod
    def build(cls, config: Any, setup: StageSetup) -> Self:
        """See `ldmkit.Stage`."""
        return cls(config, setup)

    @classmethod
    def write_example(cls, folder: Path) -> None:
        write_start(folder)


class OneFileStage(StartedStage, ABC):
    """A stage that saves a single file, under the name by which others find it in a folder."""

    file: ClassVar[str]

    @classmethod
    def check_saved(cls, folder: Path) -> None:
        check_folder(folder, cls.file, frozenset())

    def save(self, folder: Path) -> None:
        """What was trained alone, in the layout in which it is published."""
        self.check_saved(folder)
        with replacing_folder(folder) as building:
            self.write(building / self.file)

    @abstractmethod
    def write(self, path: Path) -> None:
        """Write the file."""


_UNET = {"channels": 3, "widths": [8, 16], "blocks": 1, "norm_groups": 4, "heads": 2}
_UNET |= {"attention": ["none", "cross"], "context_dim": 8}
_WORDS = {"vocab_size": 16, "start": 2, "end": 3, "pad": 0, "dim": 8, "layers": 1, "heads": 2, "head_dim": 4}


def write_start(folder: Path, *, words: bool = False) -> None:
    """A tiny pipeline of text, as `start` in an empty folder, for the contract kit's examples.

    Args:
        words: with a vocabulary, of a few letters; without, it reads ids.
    """
    text = {"text": build("conditioner", PartSpec(type="ldm-text", config={**_WORDS, "max_length": 8}), "text")}
    if words:
        (folder / "words").mkdir()
        (folder / "words" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\nc\n", encoding="utf-8")
        text["text"].load_assets(folder / "words")
    denoiser = build("denoiser", PartSpec(type="unet", config=_UNET), "denoiser")
    for parameter in denoiser.parameters():
        if not parameter.any():  # layers that start at zero let no gradient through
            nn.init.normal_(parameter, std=0.1)
    Pipeline.of(
        codec=build("codec", PartSpec(type="identity"), "codec"),
        denoiser=denoiser,
        process=build_value("process", PartSpec(type="discrete"), "process"),
        conditioners=text,
        defaults={"size": (16, 16)},
    ).save(folder / "start")
