"""The keys of a classifier's recipe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ldmkit import Value
from ldmkit_training.stages.denoiser.model_section import FrozenCodecSection
from ldmkit_training.stages.denoiser.times import Times, UniformTimes


class ClassifierSection(Value):
    """The classifier to train.

    Args:
        codec: the codec whose latents it reads, as for a denoiser.
        type: registered name of a classifier.
        config: its config: classes, their names, and the process whose noise it learns.
        start: a saved classifier to take the weights from; relative to the recipe's folder.
    """

    codec: FrozenCodecSection
    type: str = "unet-encoder"
    config: dict[str, Any] = Field(default_factory=dict)
    start: str | None = None


class ClassifierObjective(Value):
    """Cross-entropy of the class of latents with noise (Dhariwal & Nichol 2021, section 4.1).

    Args:
        label: the input that names the class: a number, or one of the classifier's names.
        times: distribution of noise levels, of the classifier's own process.
        posterior: train on a sample of the codec's posterior, or on its mode.
        smoothing: share of the target that is spread over all classes.
    """

    label: str = "label"
    times: Times = UniformTimes()
    posterior: Literal["sample", "mode"] = "sample"
    smoothing: float = Field(default=0.0, ge=0, lt=1)


class ClassifierConfig(Value):
    """
    Args:
        model: the classifier to train, and the codec whose latents it reads.
        objective: what is minimised.
        previews: a classifier draws nothing.
    """

    model: ClassifierSection
    objective: ClassifierObjective = ClassifierObjective()
    previews: None = None
