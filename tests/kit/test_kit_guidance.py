"""The guidance suite catches every broken one, and passes correct ones that know nothing of the in-tree parts."""

from __future__ import annotations

from typing import Any

import pytest
from broken_guidance import BROKEN, Plain, TextOnly, Uphill

from ldmkit.testing import check_guidance
from ldmkit.testing.checks import checks, run
from ldmkit.testing.guidance.checks import subject

CHECKS = {one.name: one for one in checks("guidance")}
CASES = [(name, cls) for name, classes in BROKEN.items() for cls in classes]


@pytest.mark.parametrize("cls", [Plain, TextOnly, Uphill])
def test_correct_guidance_pass(cls: Any) -> None:
    assert check_guidance(cls).require().ok


@pytest.mark.parametrize(("name", "cls"), CASES, ids=[f"{name}-{cls.__name__}" for name, cls in CASES])
def test_broken_guidance_are_caught(name: str, cls: Any) -> None:
    found = run(CHECKS[name], subject(cls, cls.examples[0]))
    assert found.status == "failed", str(found)
    assert found.expected and found.came and found.check.docs.endswith(f"#guidance-{name}")


def test_every_check_has_a_broken_guidance() -> None:
    assert BROKEN.keys() == CHECKS.keys()
