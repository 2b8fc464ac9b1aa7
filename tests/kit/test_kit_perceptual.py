"""The perceptual suite catches every broken distance, and passes correct ones that know no in-tree part."""

from __future__ import annotations

from typing import Any

import pytest
from broken_perceptual import BROKEN
from good_perceptual import Edges, Nothing

from ldmkit.testing import check_perceptual
from ldmkit.testing.checks import checks, run
from ldmkit.testing.perceptual import subject

CHECKS = {one.name: one for one in checks("perceptual")}
CASES = [(name, cls) for name, classes in BROKEN.items() for cls in classes]


@pytest.mark.parametrize("cls", [Edges, Nothing])
def test_correct_distances_pass(cls: Any) -> None:
    for example in cls.examples:
        found = check_perceptual(cls, example.config, trained=example.trained).require()
        assert sum(one.status == "passed" for one in found.outcomes) > 12


@pytest.mark.parametrize(("name", "cls"), CASES, ids=[f"{name}-{cls.__name__}" for name, cls in CASES])
def test_broken_distances_are_caught(name: str, cls: Any) -> None:
    found = run(CHECKS[name], subject(cls, cls.examples[0]))
    assert found.status == "failed", str(found)
    assert found.expected and found.came and found.check.docs.endswith(f"#perceptual-{name}")


def test_every_check_has_a_broken_distance() -> None:
    assert BROKEN.keys() == CHECKS.keys()
