"""The subject of the checks of conditioners: a class, a configuration, and raw inputs."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.example import Example
from ldmkit.contracts.signals import KIND_OF, Residuals, Signal, Tokens, tensors_of
from ldmkit.errors import LdmkitError
from ldmkit.models.abilities import encode_on
from ldmkit.testing.checks import NotApplicable
from ldmkit.testing.hostile import sound
from ldmkit.testing.modules import ModuleSubject
from ldmkit.testing.stand_in import bind

GRID = (8, 8)
"""Latent cells (h, w), for conditioners that encode for a grid; pictures have `SIZE` pixels."""

SIZE = (16, 16)

_BOUND = "_bound_by_the_kit"


@dataclass(frozen=True)
class Subject(ModuleSubject):
    """One conditioner in one configuration.

    Args:
        inputs: raw inputs of one sample each; if empty, they are generated from the schema of `Input`.
    """

    inputs: Sequence[Any] = ()

    def schema(self) -> dict[str, Any]:
        """The JSON schema of its input."""
        schema: dict[str, Any] = TypeAdapter(self.cls.Input).json_schema()
        return schema

    def raws(self, part: Conditioner) -> list[Any]:
        """Raw inputs: those of the example, or valid ones generated from the schema; new objects at every call."""
        if self.inputs:
            return copy.deepcopy(list(self.inputs))
        found: list[Any] = []
        for raw in sound(self.schema()):
            try:
                part.parse(copy.deepcopy(raw), "inputs")
            except LdmkitError:
                continue
            found.append(raw)
            if len(found) == 3:
                break
        return found

    def given(self, part: Conditioner) -> list[Any]:
        """The same, validated; at least two."""
        try:
            found = [part.parse(raw, f"inputs[{i}]") for i, raw in enumerate(self.raws(part))]
        except LdmkitError:
            found = []
        if len(found) < 2:
            raise NotApplicable("there are no valid inputs to check it with: see the check valid-inputs")
        return found

    def signal(self, part: Conditioner, values: Sequence[Any]) -> Signal:
        """The signal for validated inputs."""
        found: Signal = self.returned(part, values)
        if type(found) not in KIND_OF:
            raise NotApplicable("it does not return a signal: see the check signal")
        return found

    def returned(self, part: Conditioner, values: Sequence[Any]) -> Any:
        """Whatever it returns for validated inputs."""
        bound(part)
        with quiet():
            return encode_on(part, list(values), GRID)

    def outputs(self, part: Conditioner, given: list[Any]) -> tuple[Tensor, ...]:
        """The tensors of the signal."""
        return flat(self.signal(part, given))

    def learning(self, part: Conditioner, given: list[Any]) -> tuple[Tensor, ...]:
        """The signal and its null, which may be learned too."""
        signal = self.signal(part, given)
        return (*tensors_of(signal), *(tensors_of(part.null(signal)) if part.has_null else ()))

    def json_of(self, value: Any) -> Any:
        """A validated input as stored in recipes."""
        with quiet():
            data = TypeAdapter(self.cls.Input).dump_python(value, mode="json")
        return json.loads(json.dumps(data))


def of(cls: type, example: Example) -> Subject:
    """A class with one of its examples."""
    return Subject(cls, dict(example.config), example.trained, tuple(example.inputs))


def bound(part: Conditioner) -> Conditioner:
    """The part, bound to a codec as in a pipeline."""
    if not getattr(part, _BOUND, False):
        bind(part)
        setattr(part, _BOUND, True)
    return part


@contextmanager
def quiet() -> Any:
    """Suppress warnings (a truncated prompt ...), even if the caller's filters turn them into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def flat(signal: Signal) -> tuple[Tensor, ...]:
    """All tensors of a signal; the mask of tokens as 0 and 1."""
    mask = (signal.mask.int(),) if isinstance(signal, Tokens) and signal.mask is not None else ()
    return (*tensors_of(signal), *mask)


def row(signal: Signal, index: int) -> Signal:
    """One row of a signal."""
    if isinstance(signal, Residuals):
        return Residuals(tuple(value[index : index + 1] for value in signal.values))
    if isinstance(signal, Tokens):
        mask = None if signal.mask is None else signal.mask[index : index + 1]
        return Tokens(signal.value[index : index + 1], mask)
    return type(signal)(signal.value[index : index + 1])


def read(signal: Signal) -> tuple[Tensor, ...]:
    """What a denoiser reads of one row: its tensors, without masked tokens."""
    if isinstance(signal, Tokens):
        return (signal.value.flatten(0, 1) if signal.mask is None else signal.value[signal.mask],)
    return tensors_of(signal)


def no_grad(call: Callable[[], Signal]) -> Signal:
    """A signal without gradients."""
    with torch.no_grad():
        return call()
