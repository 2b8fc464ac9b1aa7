"""What a captioner promises: two captions with words in them, the same for the same picture and facts."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ldmkit.contracts.captioner import Captioner, Captions
from ldmkit.contracts.example import Example
from ldmkit.errors import InputError
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import NotApplicable, Report, check, expect, fail
from ldmkit.testing.content import content
from ldmkit.testing.extractor import drawing
from ldmkit.testing.rng import without_draws

SIZES = ((1, 1), (2, 9), (32, 32))


@dataclass(frozen=True)
class Subject:
    """A captioner to be checked, and the facts of the records that it is given."""

    captioner: Captioner
    facts: tuple[Mapping[str, Any], ...]

    def given(self) -> list[tuple[Tensor, Mapping[str, Any]]]:
        """Pictures and facts; new ones each time."""
        reads = type(self.captioner).reads
        if reads and all(getattr(self.captioner, field) is None for field in reads):
            raise NotApplicable(f"it reads weights ({', '.join(reads)}), and the example names none")
        facts = self.facts or ({},)
        many = max(len(facts), len(SIZES))
        return [(drawing(SIZES[i % len(SIZES)], i), copy.deepcopy(dict(facts[i % len(facts)]))) for i in range(many)]


def subject(cls: type[Captioner], example: Example) -> Subject:
    """The subject of the checks: a captioner's class and one of its examples."""
    return Subject(cls.of(example.config), tuple(example.inputs))


def check_captioner(
    cls: type[Captioner], config: Mapping[str, Any] | None = None, inputs: Sequence[Any] = ()
) -> Report:
    """Check a captioner with these fields and records' inputs; with its examples where none are given."""
    if config is None and not inputs:
        return check_class("captioner", cls)
    first = next(iter(cls.examples), Example())
    return check_class("captioner", cls, Example(first.config if config is None else config, inputs or first.inputs))


@check("captioner", "captions", cause=True)
def captions(subject: Subject) -> None:
    """`caption` returns `Captions`: a short and a long line, each with words in it and no blanks around it.

    Pictures of any size are described, a single pixel among them.
    """
    for number, (picture, facts) in enumerate(subject.given()):
        found = subject.captioner.caption(picture, facts)
        expect(isinstance(found, Captions), f"Captions of picture {number}", f"a {type(found).__name__}")
        for name, text in found._asdict().items():
            fine = isinstance(text, str) and text.strip() == text and any(map(str.isalnum, text)) and "\n" not in text
            expect(fine, f"a line of words as the {name} caption of picture {number}", f"{text!r:.200}")


@check("captioner", "deterministic")
def deterministic(subject: Subject) -> None:
    """The same picture and facts give the same captions, in any order, and no random generator is touched."""
    given = subject.given()
    first = [without_draws(lambda g=g: subject.captioner.caption(*g), seed=1) for g in given]  # type: ignore[misc]
    other = type(subject.captioner).of(json.loads(subject.captioner.model_dump_json()))
    expect(other == subject.captioner, f"an equal value from its JSON: {subject.captioner!r}", f"{other!r}")
    again = [without_draws(lambda g=g: other.caption(*g), seed=2) for g in given[::-1]][::-1]  # type: ignore[misc]
    expect(again == first, f"the same captions again: {first!r:.300}", f"{again!r:.300}")


@check("captioner", "inputs-untouched")
def inputs_untouched(subject: Subject) -> None:
    """`caption` changes neither the picture nor the facts."""
    for number, (picture, facts) in enumerate(subject.given()):
        before, kept = picture.clone(), content(copy.deepcopy(dict(facts)))
        subject.captioner.caption(picture, facts)
        expect(bool((picture == before).all()), f"picture {number} as it was", "another one")
        expect(content(dict(facts)) == kept, f"the facts of picture {number}: {kept!r:.200}", f"{facts!r:.200}")


@check("captioner", "needs")
def needs(subject: Subject) -> None:
    """A record without one of the facts in `needs` is refused with an `InputError` that names it."""
    wanted = type(subject.captioner).needs
    if not wanted:
        raise NotApplicable("it needs no facts")
    picture, facts = subject.given()[0]
    for name in wanted:
        try:
            found = subject.captioner.caption(picture, {key: value for key, value in facts.items() if key != name})
        except InputError as error:
            expect(name in str(error), f"an error that names {name!r}", str(error)[:300])
        else:
            fail(f"an InputError without {name!r}", f"{found!r:.200}")
