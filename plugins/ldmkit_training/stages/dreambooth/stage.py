"""The training stage of a subject, with prior preservation."""

from __future__ import annotations

from typing import ClassVar

from ldmkit import Example, StageSetup
from ldmkit.run.inputs import parse_rows
from ldmkit_training.stages.dreambooth.prior import PriorTurn
from ldmkit_training.stages.dreambooth.section import DreamBoothConfig
from ldmkit_training.stages.lora.stage import LoraStage


class DreamBoothStage(LoraStage):
    """Trains a LoRA on pictures of a subject, and on those of its class that the model draws (Ruiz et al. 2023).

    Args:
        config: the recipe.
        setup: its folder, and the seed.

    Raises:
        InputError: the class pictures' inputs are none of the model's.
        CompositionError, SourceError, WeightsError: as for a LoRA.
    """

    Config = DreamBoothConfig
    turn_class = PriorTurn
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            {
                "model": {"start": "start"},
                "lora": {"rank": 2},
                "prior": {"inputs": {"text": [2, 7, 3]}, "count": 2, "steps": 2},
            },
            ({"text": [2, 7, 9, 3]}, {"text": [2, 8, 3]}),
        ),
    )

    def __init__(self, config: DreamBoothConfig, setup: StageSetup) -> None:
        super().__init__(config, setup)
        parse_rows(self.base.parts, self.base.wiring, [config.prior.inputs], "prior.inputs")
        assert isinstance(self.turn, PriorTurn)
        self.turn.prior_of(self.base, config.prior, setup.seed)
        self.notes.append(f"prior: {config.prior.count} class pictures are drawn before the first step")
