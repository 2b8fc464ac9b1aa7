"""The recipe, stage and data that the rules about keys without effect look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pydantic import BaseModel

from ldmkit import Dataset, Stage
from ldmkit_training.before.recipe import Recipe
from ldmkit_training.data.section import renamed_names
from ldmkit_training.stages.denoiser.objective import DenoiserTurn
from ldmkit_training.stages.pipeline import denoising_turn
from ldmkit_training.watch.probe_section import ProbeSection, probe_of


class Case(NamedTuple):
    """A recipe with its stage and data, as the rules about keys without effect see it.

    Args:
        stage: the stage it trains.
        train, held: its training and held-out data.
        processes: number of training processes.
        turn: the stage's turn with noise and conditions, if it has one.
        probe: the recipe's probe section.
    """

    recipe: Recipe
    stage: Stage
    train: Dataset
    held: Dataset | None
    processes: int
    turn: DenoiserTurn | None = None
    probe: ProbeSection | None = None

    @classmethod
    def of(cls, recipe: Recipe, stage: Stage, train: Dataset, held: Dataset | None, processes: int) -> Case:
        """The case, with values that several rules need computed once."""
        return cls(recipe, stage, train, held, processes, denoising_turn(stage), probe_of(recipe))

    def sets(self, section: BaseModel | None, key: str) -> bool:
        """Whether the recipe sets a key. A recipe that sets every key was written by a run, defaults included: there
        only values that differ from the defaults count."""
        if section is None or key not in section.model_fields_set:
            return False
        everything = self.recipe.model_fields_set >= set(type(self.recipe).model_fields)
        default = type(section).model_fields[key].get_default(call_default_factory=True, validated_data={})
        return not everything or getattr(section, key) != default

    @property
    def given(self) -> set[str]:
        """Inputs of the data, by the model's names."""
        return set(renamed_names(self.train, self.recipe.data).values())


Reasons = Iterator[tuple[str, str]]
"""(key, reason)."""


def set_keys(case: Case, path: str, section: BaseModel | None, keys: tuple[str, ...], reason: str) -> Reasons:
    for key in keys:
        if case.sets(section, key):
            yield f"{path}.{key.rstrip('_')}", reason
