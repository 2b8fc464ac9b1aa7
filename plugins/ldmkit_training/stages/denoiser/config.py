"""The keys of a denoiser's recipe."""

from __future__ import annotations

from ldmkit_training.loop.sharding import Sharding
from ldmkit_training.stages.denoiser.model_section import ModelSection
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from ldmkit_training.watch.probe_section import Probing


class DenoiserConfig(Sharding, Probing):
    """The denoiser in `model`, and those conditioners and adapters that are not frozen.

    Args:
        model: the pipeline to train, part by part.
        objective: what is minimised.
        gradient_checkpointing: recompute the blocks' forward pass in the backward pass, which takes less memory.
        compile: compile the denoiser's repeated blocks.
    """

    model: ModelSection
    objective: DenoiserObjective = DenoiserObjective()
    gradient_checkpointing: bool = False
    compile: bool = False
