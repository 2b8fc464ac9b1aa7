"""The sampler suite catches every broken sampler, and passes correct ones that know nothing of the in-tree parts."""

from __future__ import annotations

from typing import Any

import pytest
from broken_sampler import BROKEN, InPlace
from good_sampler import Jumps, Renewed, Straight, TwoStage

from ldmkit.testing import check_sampler
from ldmkit.testing.checks import checks, run
from ldmkit.testing.sampler.checks import subject

CHECKS = {one.name: one for one in checks("sampler")}
CASES = [(name, cls) for name, classes in BROKEN.items() for cls in classes]


@pytest.mark.parametrize("cls", [Straight, Renewed, TwoStage, Jumps])
def test_correct_samplers_pass(cls: Any) -> None:
    for example in cls.examples:
        found = check_sampler(cls, example.config).require()
        assert sum(one.status == "passed" for one in found.outcomes) >= 16


@pytest.mark.parametrize(("name", "cls"), CASES, ids=[f"{name}-{cls.__name__}" for name, cls in CASES])
def test_broken_samplers_are_caught(name: str, cls: Any) -> None:
    found = run(CHECKS[name], subject(cls, cls.examples[0]))
    assert found.status == "failed", str(found)
    assert found.error is None, "an exception of the broken part itself says nothing about the check"
    assert found.expected and found.came and found.check.docs.endswith(f"#sampler-{name}")


def test_a_sampler_that_writes_to_its_start_harms_no_later_one() -> None:
    run(CHECKS["order"], subject(InPlace, InPlace.examples[0]))
    assert run(CHECKS["order"], subject(TwoStage, TwoStage.examples[0])).status == "passed"


def test_every_check_has_a_broken_sampler() -> None:
    assert BROKEN.keys() == CHECKS.keys()
