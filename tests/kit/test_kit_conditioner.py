"""The suite of conditioners catches what it is for, and lets sound parts through."""

from __future__ import annotations

from typing import Any

import broken_conditioner as parts
import broken_conditioner_abilities  # noqa: F401 - registers its own
import broken_conditioner_ports  # noqa: F401 - registers its own
import broken_conditioner_words
import pytest
from good_conditioner import Palette, Plain, Spoken

from ldmkit import Conditioner
from ldmkit.testing import check_conditioner, refusals
from ldmkit.testing.checks import checks, run
from ldmkit.testing.conditioner.checks import subject

CASES = [*parts.BROKEN.items(), *parts.MORE]


def ids(value: Any) -> str:
    return value if isinstance(value, str) else value.__name__


@pytest.mark.parametrize(("name", "cls"), CASES, ids=ids)
def test_a_broken_part_is_caught(name: str, cls: type[Conditioner], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "SECONDS", 0.5)
    [one] = [check for check in checks("conditioner") if check.name == name]
    outcome = run(one, subject(cls, cls.examples[0]))
    assert outcome.status == "failed", str(outcome)
    assert outcome.expected and outcome.came


def test_every_check_has_a_broken_part() -> None:
    assert set(parts.BROKEN) == {check.name for check in checks("conditioner")}


@pytest.mark.parametrize("cls", [Palette, Plain, Spoken])
def test_a_sound_part_passes(cls: type[Conditioner]) -> None:
    report = check_conditioner(cls).require()
    skipped = {outcome.check.name for outcome in report.outcomes if outcome.status == "skipped"}
    none = {"learnt-words", "picture-size", "proposals"}
    more = {Palette: {"ports"}, Plain: {"device", "gradients", "leave-out", "placed", "ports"}, Spoken: set()}
    assert skipped == none | more[cls]


def test_a_sound_part_learns_words() -> None:
    [one] = [check for check in checks("conditioner") if check.name == "learnt-words"]
    reader = broken_conditioner_words.Reader
    assert run(one, subject(reader, reader.examples[0])).status == "passed"


def test_config_and_inputs_can_be_given() -> None:
    check_conditioner(Palette, {"dim": 3}).require()
    given = [{"colours": ["#00ff00"] * 5}, {"colours": ["#0000ff"]}]
    check_conditioner(Palette, {"dim": 3}, given).require()
    with pytest.raises(AssertionError, match="conditioner-listens"):
        check_conditioner(Palette, {"dim": 3}, [given[0], given[0]]).require()
    with pytest.raises(AssertionError, match="expected: at least two inputs"):
        check_conditioner(Palette, inputs=given[:1]).require()
