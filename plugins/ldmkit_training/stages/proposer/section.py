"""The keys of a proposer's recipe."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from ldmkit import SpecError, Value


class ProposerSection(Value):
    """The conditioner whose proposer is trained, in a pipeline that stays what it is otherwise.

    Args:
        start: a saved pipeline, or a run's folder; relative to the recipe's.
        conditioner: its name in that pipeline.
        type, config: what it becomes, where it is of a type without a proposer; its weights are kept.
        assets: folder with its other files (a vocabulary), or `package:folder` of an installed package.
    """

    start: str = Field(min_length=1)
    conditioner: str = Field(min_length=1)
    type: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    assets: str | None = None

    @model_validator(mode="after")
    def _whose(self) -> Self:
        if self.config and self.type is None:
            fits = "the `type` that it is of, or no config: the start has its own"
            raise SpecError("config-without-type", "a config, but no type", where="model.config", fits=fits)
        return self


class ProposerConfig(Value):
    """
    Args:
        model: the pipeline, and the conditioner whose proposer is trained.
        previews: a proposer draws nothing.
    """

    model: ProposerSection
    previews: None = None
