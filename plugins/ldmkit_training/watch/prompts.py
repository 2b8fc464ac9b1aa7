"""Previews of user-given conditions: a fixed list, each with its seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from ldmkit import Batch, Draws, Pipeline, Value
from ldmkit.models.spec import Side
from ldmkit.run.inputs import input_name
from ldmkit_training.before.moving import picture_fields
from ldmkit_training.data.places import Place, replaced


class Prompt(Value):
    """Conditions to draw in every preview; a plain string is the input `text`.

    Args:
        inputs: inputs by the model's names; paths of pictures are relative to the recipe's folder.
        seed: seed of its noise; null: the previews' seed plus its position.
        size: (height, width); null: the recipe's `data.size`.
    """

    inputs: dict[str, Any]
    seed: int | None = Field(default=None, ge=0)
    size: tuple[Side, Side] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, data: Any) -> Any:
        return {"inputs": {"text": data}} if isinstance(data, str) else data


def prompt_rows(
    prompts: Sequence[Prompt], pipeline: Pipeline, size: tuple[int, int], seed: int, folder: Path
) -> list[tuple[Batch, tuple[int, ...]]]:
    """Prompts as batches without pictures, each with its seeds; consecutive prompts of one size share a batch."""
    made: list[tuple[Batch, tuple[int, ...]]] = []
    for number, prompt in enumerate(prompts):
        own = prompt.size or size
        inputs = _located(prompt.inputs, pipeline, folder)
        seeds = (seed + number if prompt.seed is None else prompt.seed,)
        ids = (f"prompt {number + 1}",)
        if made and made[-1][0].size == own:
            before, drawn = made.pop()
            ids, inputs_, seeds = (*before.ids, *ids), [*before.inputs, inputs], (*drawn, *seeds)
        else:
            inputs_ = [inputs]
        draws = Draws(seed, 0, tuple(range(len(ids))))
        made.append((Batch(ids, None, None, None, inputs_, own, draws), seeds))
    return made


def _located(inputs: Mapping[str, Any], pipeline: Pipeline, folder: Path) -> dict[str, Any]:
    places = [
        Place(input_name(name, pipeline.wiring[name]), field)
        for name, part in pipeline.conditioners.items()
        for field, _ in picture_fields(part.Input)
    ]

    def found(value: Any, place: Place) -> Any:
        path = isinstance(value, str) and not value.startswith("data:")
        return str(folder / value) if path else value

    return replaced(inputs, dict.fromkeys(places), found)
