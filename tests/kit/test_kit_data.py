"""The suite of sources of data catches what it is for, and lets a sound source through."""

from __future__ import annotations

from typing import Any

import broken_data as parts
import pytest

from ldmkit import Data
from ldmkit.testing import check_data, data
from ldmkit.testing.checks import checks, run

CASES = [*parts.BROKEN.items(), *parts.MORE]


def ids(value: Any) -> str:
    return value if isinstance(value, str) else value.__name__


@pytest.mark.parametrize(("name", "cls"), CASES, ids=ids)
def test_a_broken_source_is_caught(name: str, cls: type[Data]) -> None:
    [one] = [check for check in checks("data") if check.name == name]
    outcome = run(one, data.subject(cls, cls.examples[0]))
    assert outcome.status == "failed", str(outcome)
    assert outcome.expected and outcome.came


def test_every_check_has_a_broken_source() -> None:
    assert set(parts.BROKEN) == {check.name for check in checks("data")}


def test_a_sound_source_passes() -> None:
    assert all(outcome.status == "passed" for outcome in check_data(parts.GreyData).require().outcomes)
    check_data(parts.GreyData, {"file": "others.txt"}).require()
