"""The suite of training stages catches every broken stage, and passes a correct one that knows no in-tree part."""

from __future__ import annotations

from typing import Any

import pytest
from broken_stage import BROKEN
from good_stage import Mean

from ldmkit.testing import check_stage
from ldmkit.testing.checks import checks, run
from ldmkit.testing.stage import subject

CHECKS = {one.name: one for one in checks("stage")}
CASES = [(name, cls) for name, classes in BROKEN.items() for cls in classes]


def test_a_correct_stage_passes() -> None:
    for example in Mean.examples:
        found = check_stage(Mean, example.config, inputs=example.inputs).require()
        assert {one.status for one in found.outcomes if one.check.kind == "stage"} == {"passed"}


@pytest.mark.parametrize(("name", "cls"), CASES, ids=[f"{name}-{cls.__name__}" for name, cls in CASES])
def test_broken_stages_are_caught(name: str, cls: Any) -> None:
    found = run(CHECKS[name], subject(cls, cls.examples[0]))
    assert found.status == "failed", str(found)
    assert found.error is None and found.expected and found.came, str(found)


def test_every_check_has_a_broken_stage() -> None:
    assert BROKEN.keys() == CHECKS.keys()
