"""What an extractor promises: a hint that can be stored as a picture, the same for the same input, of the size it says.

Pictures of several sizes are tried, a pixel and a row among them, beside the inputs of its examples.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from ldmkit.contracts.example import Example
from ldmkit.contracts.extractor import Extractor
from ldmkit.errors import LdmkitError
from ldmkit.files.hints import MASKED, is_levels
from ldmkit.files.levels import from_levels
from ldmkit.files.pictures import Picture
from ldmkit.testing.batches import same
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import NotApplicable, Report, check, expect, fail
from ldmkit.testing.content import content
from ldmkit.testing.hostile import sound
from ldmkit.testing.refusals import check_refusals, check_texts
from ldmkit.testing.rng import without_draws
from ldmkit.testing.tensors import expect_equal

SIZES = ((1, 1), (1, 7), (5, 1), (2, 3), (17, 24), (32, 32))


@dataclass(frozen=True)
class Subject:
    """An extractor to be checked, and parsed inputs."""

    extractor: Extractor
    raws: tuple[Any, ...]

    def given(self) -> list[Any]:
        """Parsed inputs: those of the example, and pictures of `SIZES` where it takes pictures; new ones each time."""
        reads = type(self.extractor).reads
        if reads and all(getattr(self.extractor, field) is None for field in reads):
            raise NotApplicable(f"it reads weights ({', '.join(reads)}), and the example names none")
        found = [self.extractor.parse(copy.deepcopy(raw), f"inputs[{i}]") for i, raw in enumerate(self.raws)]
        pictures = [*map(drawing, SIZES), drawing(SIZES[-1]).flip(-1)]
        return [*found, *(pictures if type(self.extractor).Input is Picture else ())]

    def json_of(self, value: Any) -> Any:
        """A parsed input as recipes hold it."""
        data = TypeAdapter(type(self.extractor).Input).dump_python(value, mode="json")
        return json.loads(json.dumps(data))


def subject(cls: type[Extractor], example: Example) -> Subject:
    """The subject of the checks: an extractor's class and one of its examples."""
    extractor = cls.of(example.config)
    raws: Sequence[Any] = example.inputs
    if not raws:
        raws = [raw for raw in sound(TypeAdapter(cls.Input).json_schema()) if _valid(extractor, raw)][:3]
    return Subject(extractor, tuple(raws))


def check_extractor(
    cls: type[Extractor], config: Mapping[str, Any] | None = None, inputs: Sequence[Any] = ()
) -> Report:
    """Check an extractor with these fields and raw inputs; with its examples where none are given."""
    if config is None and not inputs:
        return check_class("extractor", cls)
    first = next(iter(cls.examples), Example())
    return check_class("extractor", cls, Example(first.config if config is None else config, inputs or first.inputs))


def drawing(size: tuple[int, int], seed: int = 0) -> Tensor:
    """A picture (3, H, W) with a disc, a bar, a ramp and some noise."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    ramp = 160.0 * (x + y) / max(height + width - 2, 1)
    disc = 90.0 * ((y - height / 2) ** 2 + (x - width / 3) ** 2 < (min(size) / 3) ** 2)
    colours = np.stack([ramp + disc, ramp[::-1], 200.0 - ramp + 40 * (x % 9 < 3)], axis=-1)
    noise = np.random.default_rng(seed).normal(0, 6, colours.shape)
    return from_levels((colours + noise).round().clip(0, 255).astype(np.uint8))


def _valid(extractor: Extractor, raw: Any) -> bool:
    try:
        extractor.parse(copy.deepcopy(raw), "inputs")
    except LdmkitError:
        return False
    return True


@check("extractor", "valid-inputs", cause=True)
def valid_inputs(subject: Subject) -> None:
    """There are at least two valid inputs to check it with.

    They are the `inputs` of the class's `examples`, raw as a caller writes them; where there are none, they are made
    from the schema of `Input`. All other checks need them.
    """
    expect(len(subject.raws) >= 2, "two valid inputs in the class's `examples`", f"{len(subject.raws)}")
    for number, raw in enumerate(subject.raws):
        try:
            subject.extractor.parse(copy.deepcopy(raw), f"inputs[{number}]")
        except LdmkitError as error:
            fail(f"inputs[{number}] of the example to be valid", str(error))


@check("extractor", "hint")
def hint(subject: Subject) -> None:
    """A hint is (3, H, W) float32 in [-1, 1] on the CPU, of 8-bit levels, in memory of its own.

    Levels are what a PNG holds, so that a hint made on the fly and one that was written to a file are the same.
    `ldmkit.from_levels` makes such a picture of uint8. Pixels without a hint are `ldmkit.MASKED` in all channels.
    """
    for number, value in enumerate(subject.given()):
        found = subject.extractor.extract(value)
        expect(isinstance(found, Tensor), f"a tensor for inputs[{number}]", f"a {type(found).__name__}")
        came = f"shape {tuple(found.shape)}, {found.dtype}, {found.device}"
        fine = found.ndim == 3 and found.shape[0] == 3 and found.dtype == torch.float32 and found.device.type == "cpu"
        expect(fine, "(3, H, W) float32 on the CPU", came)
        known = found[found != MASKED]
        span = f"{float(known.min()):g} to {float(known.max()):g}" if known.numel() else "no value"
        expect(bool(((known >= -1) & (known <= 1)).all()), "values in [-1, 1], or MASKED", span)
        expect(is_levels(found), "8-bit levels k / 127.5 - 1, masked pixels masked in all channels", span)
        kept = found.clone()
        found.fill_(0.5)
        expect_equal(subject.extractor.extract(value), kept, f"the hint of inputs[{number}] after one was written to")


@check("extractor", "size")
def size(subject: Subject) -> None:
    """The hint has the size that `hint_size` says, for pictures of any size: a pixel, a row, odd sides."""
    for number, value in enumerate(subject.given()):
        said = subject.extractor.hint_size(value)
        fine = isinstance(said, tuple) and len(said) == 2 and all(type(side) is int and side > 0 for side in said)
        expect(fine, f"hint_size of inputs[{number}]: (height, width)", f"{said!r}")
        found = subject.extractor.extract(value).shape[-2:]
        expect(tuple(found) == tuple(said), f"a hint of {said} for inputs[{number}]", f"{tuple(found)}")


@check("extractor", "deterministic")
def deterministic(subject: Subject) -> None:
    """The same input gives the same hint, bit for bit, and no random generator is touched.

    Whatever was extracted before, whatever the seeds of the global generators, and from an equal value that was read
    from JSON: a recipe holds the extractor and its input, and replaying it makes the hint again.
    """
    values = subject.given()
    first = [without_draws(lambda v=v: subject.extractor.extract(v), seed=1) for v in values]  # type: ignore[misc]
    other = type(subject.extractor).of(json.loads(subject.extractor.model_dump_json()))
    expect(other == subject.extractor, f"an equal value from its JSON: {subject.extractor!r}", f"{other!r}")
    again = [without_draws(lambda v=v: other.extract(v), seed=2) for v in values[::-1]][::-1]  # type: ignore[misc]
    same(again, first, "the hint, made again in another order by an equal extractor")


@check("extractor", "inputs-untouched")
def inputs_untouched(subject: Subject) -> None:
    """Neither `parse` nor `extract` changes what it is given.

    Training extracts hints of the very pictures that it encodes.
    """
    for number, raw in enumerate(subject.raws):
        given = copy.deepcopy(raw)
        before = content(copy.deepcopy(given))
        subject.extractor.parse(given, "inputs")
        expect(content(given) == before, f"inputs[{number}] after parse: {before!r:.200}", f"{content(given)!r:.200}")
    for number, value in enumerate(subject.given()):
        before = content(copy.deepcopy(value))
        subject.extractor.extract(value)
        after = content(value)
        expect(after == before, f"inputs[{number}] after extract: {before!r:.200}", f"{after!r:.200}")


@check("extractor", "tells-apart")
def tells_apart(subject: Subject) -> None:
    """Inputs that differ give hints that differ, for some of those that it is checked with.

    A hint that is the same for everything conditions nothing.
    """
    groups: dict[tuple[int, ...], set[bytes]] = {}
    count = 0
    for value in subject.given():
        found = subject.extractor.extract(value)
        groups.setdefault(tuple(found.shape), set()).add(found.numpy().tobytes())
        count += 1
    if count == len(groups):
        raise NotApplicable("no two of its inputs give hints of the same size")
    expect(any(len(one) > 1 for one in groups.values()), "different hints for different inputs", "the same ones")


@check("extractor", "input-json")
def input_json(subject: Subject) -> None:
    """A parsed input can be written as JSON, and read back it gives the same hint.

    A picture's recipe holds it: `TypeAdapter(Input).dump_python(value, mode="json")`, which `parse` must take again.
    """
    for number, value in enumerate(subject.given()):
        try:
            again = subject.extractor.parse(subject.json_of(value), "recipe")
        except Exception as error:
            fail(
                f"inputs[{number}] to be written as JSON and read again", f"{type(error).__name__}: {str(error)[:300]}"
            )
        same([subject.extractor.extract(again)], [subject.extractor.extract(value)], f"the hint of inputs[{number}]")


@check("extractor", "hostile-inputs")
def hostile_inputs(subject: Subject) -> None:
    """Whatever is passed as an input is refused with an `InputError`, or gives a hint.

    Inputs come from users: empty, huge, of another type, damaged, with keys missing or unknown. A refusal says what was
    wrong, and where, in at most 1000 characters; anything else (a TypeError from inside, an endless loop) is a fault.
    """
    extractor = subject.extractor

    def use(value: Any) -> str:
        found = extractor.extract(value)
        fine = isinstance(found, Tensor) and found.ndim == 3 and is_levels(found)
        return "" if fine else "something that is no hint"

    good = [subject.json_of(value) for value in subject.given()[:2]]
    schema = TypeAdapter(type(extractor).Input).json_schema()
    check_refusals(schema, good, lambda raw: extractor.parse(raw, "inputs"), use, "a hint")


@check("extractor", "command-line")
def command_line(subject: Subject) -> None:
    """`from_text` makes something of any text, or refuses it with an `InputError`."""
    check_texts(type(subject.extractor).from_text)
