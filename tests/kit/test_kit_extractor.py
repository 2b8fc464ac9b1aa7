"""The extractor suite catches every broken one, and passes correct ones that know nothing of the in-tree parts."""

from __future__ import annotations

from typing import Any

import pytest
from broken_extractor import BROKEN, HalfMasked, Inverted, Rows

from ldmkit.testing import check_extractor
from ldmkit.testing.checks import checks, run
from ldmkit.testing.extractor import subject

CHECKS = {one.name: one for one in checks("extractor")}
CASES = [(name, cls) for name, classes in BROKEN.items() for cls in classes]


@pytest.mark.parametrize("cls", [Inverted, HalfMasked, Rows])
def test_a_correct_extractor_passes(cls: Any) -> None:
    assert check_extractor(cls).require().ok


@pytest.mark.parametrize(("name", "cls"), CASES, ids=[f"{name}-{cls.__name__}" for name, cls in CASES])
def test_broken_extractors_are_caught(name: str, cls: Any) -> None:
    found = run(CHECKS[name], subject(cls, cls.examples[0]))
    assert found.status == "failed", str(found)
    assert found.expected and found.came and found.check.docs.endswith(f"#extractor-{name}")


def test_every_check_has_a_broken_extractor() -> None:
    assert BROKEN.keys() == CHECKS.keys()
