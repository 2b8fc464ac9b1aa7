"""The classifier suite catches every broken classifier, and passes a correct one that knows no in-tree part."""

from __future__ import annotations

from typing import Any

import pytest
from broken_classifier import BROKEN
from good_classifier import Few

from ldmkit.testing import check_classifier
from ldmkit.testing.checks import checks, run
from ldmkit.testing.classifier import subject

CHECKS = {one.name: one for one in checks("classifier")}
CASES = [(name, cls) for name, classes in BROKEN.items() for cls in classes]


@pytest.mark.parametrize("cls", [Few])
def test_correct_classifiers_pass(cls: Any) -> None:
    for example in cls.examples:
        found = check_classifier(cls, example.config).require()
        assert sum(one.status == "passed" for one in found.outcomes) > 15


@pytest.mark.parametrize(("name", "cls"), CASES, ids=[f"{name}-{cls.__name__}" for name, cls in CASES])
def test_broken_classifiers_are_caught(name: str, cls: Any) -> None:
    found = run(CHECKS[name], subject(cls, cls.examples[0]))
    assert found.status == "failed", str(found)
    assert found.expected and found.came and found.check.docs.endswith(f"#classifier-{name}")


def test_every_check_has_a_broken_classifier() -> None:
    assert BROKEN.keys() == CHECKS.keys()
