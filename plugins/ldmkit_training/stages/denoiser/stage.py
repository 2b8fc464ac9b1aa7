"""The training stage of a denoiser, with its conditioners and adapters."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import torch

from ldmkit import Denoiser, Example, StageSetup
from ldmkit_training.stages.denoiser.config import DenoiserConfig
from ldmkit_training.stages.denoiser.model import compose_model
from ldmkit_training.stages.denoiser.model_section import ModelSection
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from ldmkit_training.stages.denoising import DenoisingStage

_UNET = {"channels": 3, "widths": [8, 16], "blocks": 1, "norm_groups": 4, "heads": 2}
_UNET |= {"attention": ["none", "cross"], "context_dim": 8}
MAX_RECOMPILES = 256


class DenoiserStage(DenoisingStage):
    """Trains a denoiser, and those conditioners and adapters that are not frozen.

    Args:
        model: what to build; its paths start from `folder`.
        objective: what to minimise.
        folder: the recipe's.
        seed: of the first weights.
        size: (height, width) of the pictures; None: not known.
        gradient_checkpointing: recompute every block of the denoiser in the backward pass instead of keeping it.
        compile: torch.compile the denoiser's repeated blocks, one by one.

    Attributes:
        notes: a line for each part: new, or from where.

    Raises:
        CompositionError: parts that do not fit; `no-checkpointing`; an unknown name under `objective.dropout`.
        SourceError, WeightsError, SpecError, PluginError: see `compose_model`.
    """

    api: ClassVar[int] = 1
    Config = DenoiserConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            {
                "model": {
                    "codec": {"type": "identity"},
                    "denoiser": {"type": "unet", "config": _UNET},
                    "process": {"type": "flow"},
                    "conditioners": {"label": {"type": "label", "config": {"n_classes": 4, "dim": 8, "null_class": 3}}},
                },
                "objective": {"dropout": {"rates": {"label": 0.5}}},
            },
            ({"label": 0}, {"label": 2}, {"label": 1}),
        ),
    )

    @classmethod
    def build(cls, config: DenoiserConfig, setup: StageSetup) -> Self:
        """See `ldmkit.Stage`."""
        return cls(
            config.model, config.objective, setup.folder,
            seed=setup.seed, size=setup.size, gradient_checkpointing=config.gradient_checkpointing,
            compile=config.compile,
        )  # fmt: skip

    def __init__(
        self,
        model: ModelSection,
        objective: DenoiserObjective,
        folder: Path,
        *,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
    ) -> None:
        composed = compose_model(model, folder, seed, size)
        self.notes = composed.notes
        self.set_up(composed.pipeline, objective, composed.trained, gradient_checkpointing=gradient_checkpointing)
        if compile:
            _compile_blocks(self.pipeline.denoiser)


def _compile_blocks(denoiser: Denoiser) -> None:
    """In place: the calls of the blocks change, no module and no state-dict key."""
    regions = denoiser.regions or (type(denoiser),)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_RECOMPILES)
    for module in denoiser.modules():
        if type(module) in regions:
            module.compile(dynamic=False)
