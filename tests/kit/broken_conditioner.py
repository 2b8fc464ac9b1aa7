"""For each promise of conditioners, one that breaks it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import torch
from good_conditioner import Colours, Palette, Plain
from pydantic import PlainValidator, WithJsonSchema
from torch import Tensor

from ldmkit import Conditioner, Example, InputError, Tokens, Vector
from ldmkit.contracts.signals import Signal

BROKEN: dict[str, type[Conditioner]] = {}
"""Check -> a part that breaks this promise."""

MORE: list[tuple[str, type[Conditioner]]] = []
"""Further ways to break one."""


def breaks(name: str) -> Any:
    """Register a broken part for a check."""

    def register(cls: type[Conditioner]) -> type[Conditioner]:
        if BROKEN.setdefault(name, cls) is not cls:
            MORE.append((name, cls))
        return cls

    return register


@breaks("input-schema")
class NoSchema(Palette):
    """Its input is whatever a function takes."""

    Input = Annotated[Any, PlainValidator(lambda raw: raw)]


@breaks("valid-inputs")
class NoInputs(Palette):
    """Its schema does not say what a colour looks like, and it has no inputs to show."""

    examples = (Example({"dim": 6}),)


@breaks("valid-inputs")
class WrongInputs(Palette):
    """Its examples are not valid."""

    examples = (Example({"dim": 6}, ({"colours": ["red"]}, {"colours": ["blue"]})),)


@breaks("valid-inputs")
class OneInput(Palette):
    """One input shows nothing about batches."""

    examples = (Example({"dim": 6}, ({"colours": ["#ff0000"]},)),)


@breaks("input-json")
class NotJson(Plain):
    """Its validated input is a tensor without a serialiser."""

    Input = Annotated[
        Any,
        PlainValidator(torch.tensor),
        WithJsonSchema({"type": "array", "items": {"type": "number"}}),
    ]
    examples = (Example(inputs=([1.0, 2.0], [3.0, 4.0])),)

    def forward(self, inputs: list[Any]) -> Signal:
        return Vector(torch.stack(inputs))


@breaks("inputs-untouched")
class Clears(Plain):
    """Empties the caller's list."""

    Input = list[float]
    examples = (Example(inputs=([1.0, 2.0, 3.0], [3.0, 4.0, 5.0])),)

    def forward(self, inputs: list[Any]) -> Signal:
        return Vector(torch.tensor([[item.pop(), item[0]] for item in inputs]))


@breaks("inputs-untouched")
class NullWrites(Palette):
    """Writes zeros into the signal it is given."""

    def null(self, like: Signal) -> Signal:
        assert isinstance(like, Tokens)
        return Tokens(like.value.zero_(), like.mask)


@breaks("hostile-inputs")
class Trusting(Palette):
    """Believes that every input is a mapping with numbers."""

    def parse(self, raw: Any, where: str) -> Any:
        return Colours.model_construct(colours=raw["colours"])


@breaks("hostile-inputs")
class LetsNaNIn(Plain):
    """Any two numbers, NaN among them."""

    Input = tuple[float, float]
    examples = (Example(inputs=((0.1, 0.2), (0.3, 0.4))),)


@breaks("hostile-inputs")
class Wordy(Plain):
    """Puts the whole input into its refusal."""

    def parse(self, raw: Any, where: str) -> Any:
        try:
            return super().parse(raw, where)
        except InputError:
            raise InputError("not-two-numbers", f"no: {raw}", where=where) from None


@breaks("hostile-inputs")
class Nowhere(Plain):
    """Does not say which input it refuses."""

    def parse(self, raw: Any, where: str) -> Any:
        try:
            return super().parse(raw, where)
        except InputError as error:
            raise InputError("not-two-numbers", error.what) from None


@breaks("hostile-inputs")
class Hangs(Plain):
    """Never comes back from a text."""

    def parse(self, raw: Any, where: str) -> Any:
        while isinstance(raw, str):
            time.sleep(0.01)
        return super().parse(raw, where)


@breaks("command-line")
class JsonOnly(Palette):
    """Lets the decoder's error out."""

    @classmethod
    def from_text(cls, text: str) -> Any:
        return json.loads(text)


@breaks("signal")
class WrongDim(Palette):
    """Declares another dim than it makes."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.dim += 1


@breaks("signal")
class NothingToSee(Palette):
    """Its masks leave everything out."""

    def forward(self, inputs: list[Any]) -> Signal:
        found = super().forward(inputs)
        assert isinstance(found, Tokens) and found.mask is not None
        return Tokens(found.value, torch.zeros_like(found.mask))


@breaks("signal")
class PlainTensor(Palette):
    """Returns a tensor."""

    def forward(self, inputs: list[Any]) -> Any:
        return super().forward(inputs).value  # type: ignore[union-attr]


@breaks("declared-on-meta")
class DimFromWeights(Palette):
    """Counts its dim where there are numbers to count."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.dim = 0 if self.project.weight.is_meta else len(self.project.weight.abs().sum(1).tolist())


@breaks("meta")
class ReadsAtOnce(Palette):
    """Opens a file while it is built."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        Path(os.devnull).read_text(encoding="utf-8")


@breaks("state-keys")
class Counts(Palette):
    """Counts its calls in a buffer."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, inputs: list[Any]) -> Signal:
        self.calls += 1
        return super().forward(inputs)


@breaks("safetensors")
class Forgets(Palette):
    """Keeps a random tensor that no file holds."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.scale = torch.randn(self.dim, device="cpu")

    def forward(self, inputs: list[Any]) -> Signal:
        found = super().forward(inputs)
        assert isinstance(found, Tokens)
        return Tokens(found.value * self.scale.to(found.value), found.mask)


@breaks("copies")
class HoldsLambda(Palette):
    """Has a function without a name for an attribute."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.clean = lambda text: text.lower()


@breaks("determinism")
class Tires(Palette):
    """Gives a little less every time."""

    strength = 1.0

    def forward(self, inputs: list[Any]) -> Signal:
        found = super().forward(inputs)
        assert isinstance(found, Tokens)
        self.strength *= 0.9
        return Tokens(found.value * self.strength, found.mask)


@breaks("no-global-rng")
class Rolls(Palette):
    """Draws from the global generator and makes nothing of it."""

    def forward(self, inputs: list[Any]) -> Signal:
        torch.rand(1)
        return super().forward(inputs)


@breaks("dtype")
class AlwaysFloat(Palette):
    """Returns float32 whatever its weights are."""

    def forward(self, inputs: list[Any]) -> Signal:
        found = super().forward(inputs)
        assert isinstance(found, Tokens)
        return Tokens(found.value.float(), found.mask)


@breaks("device")
class StaysHome(Palette):
    """Adds a constant that is always on the CPU."""

    def forward(self, inputs: list[Any]) -> Signal:
        found = super().forward(inputs)
        assert isinstance(found, Tokens)
        return Tokens(found.value + torch.ones(1, self.dim, device="cpu").expand(1, -1), found.mask)


@breaks("gradients")
class Frozen(Palette):
    """Cuts its gradients off."""

    def forward(self, inputs: list[Any]) -> Signal:
        found = super().forward(inputs)
        assert isinstance(found, Tokens)
        return Tokens(found.value.detach(), found.mask)


@breaks("float64")
class NoWider(Palette):
    """Knows no dtype wider than float32."""

    def forward(self, inputs: list[Any]) -> Signal:
        found = super().forward(inputs)
        assert isinstance(found, Tokens)
        value = found.value
        return Tokens(value.float() if value.dtype == torch.float64 else value, found.mask)


@breaks("listens")
class Deaf(Palette):
    """Makes the same of every palette."""

    def forward(self, inputs: list[Any]) -> Signal:
        weight = self.project.weight
        return Tokens(self.project(torch.ones(len(inputs), 1, 3, dtype=weight.dtype, device=weight.device)))


@breaks("batch-invariance")
class BatchMean(Palette):
    """Takes the batch's mean off."""

    def forward(self, inputs: list[Any]) -> Signal:
        found = super().forward(inputs)
        assert isinstance(found, Tokens)
        return Tokens(found.value - found.value.mean(0, keepdim=True), found.mask)


@breaks("training-rows")
class BatchNormed(Palette):
    """Takes the mean of the batch off in training, and a running one later."""

    def forward(self, inputs: list[Any]) -> Signal:
        found = super().forward(inputs)
        assert isinstance(found, Tokens)
        return Tokens(found.value - found.value.mean(0, keepdim=True), found.mask) if self.training else found


@breaks("order")
class Numbered(Palette):
    """Adds the row's number."""

    def forward(self, inputs: list[Any]) -> Signal:
        found = super().forward(inputs)
        assert isinstance(found, Tokens)
        return Tokens(found.value + torch.arange(len(inputs)).to(found.value)[:, None, None], found.mask)


@breaks("null-shape")
class OneRow(Palette):
    """Its null has one row for all."""

    def null(self, like: Signal) -> Signal:
        found = super().null(like)
        assert isinstance(found, Tokens) and found.mask is not None
        return Tokens(found.value[:1], found.mask[:1])


@breaks("null-usable")
class NullOfTheLast(Palette):
    """Its null is the mean of what was encoded last."""

    last: Tensor | None = None

    def forward(self, inputs: list[Any]) -> Signal:
        found = super().forward(inputs)
        assert isinstance(found, Tokens)
        self.last = found.value.mean()
        return found

    def null(self, like: Signal) -> Signal:
        found = super().null(like)
        assert isinstance(found, Tokens)
        return Tokens(found.value if self.last is None else found.value + self.last, found.mask)


@breaks("leave-out")
class RawExample(Palette):
    """Its example is not what `forward` takes."""

    def example(self, size: tuple[int, int]) -> Any:
        return {"colours": ["#000000"]}


@breaks("placed")
class KeepsTokens(Palette):
    """The last tokens, in a list, wherever they are."""

    def forward(self, inputs: list[Any]) -> Signal:
        found = super().forward(inputs)
        assert isinstance(found, Tokens)
        self.last = [found.value]
        return found
