"""The cache suite catches every broken one, and passes correct ones that know nothing of the in-tree parts."""

from __future__ import annotations

from typing import Any

import pytest
from broken_cache import BROKEN, Halves

from ldmkit.testing import check_cache
from ldmkit.testing.cache import subject
from ldmkit.testing.checks import checks, run

CHECKS = {one.name: one for one in checks("cache")}
CASES = [(name, cls) for name, classes in BROKEN.items() for cls in classes]


def test_a_correct_cache_passes() -> None:
    assert check_cache(Halves).require().ok


@pytest.mark.parametrize(("name", "cls"), CASES, ids=[f"{name}-{cls.__name__}" for name, cls in CASES])
def test_broken_caches_are_caught(name: str, cls: Any) -> None:
    found = run(CHECKS[name], subject(cls, cls.examples[0]))
    assert found.status == "failed", str(found)
    assert found.expected and found.came and found.check.docs.endswith(f"#cache-{name}")


def test_every_check_has_a_broken_cache() -> None:
    assert BROKEN.keys() == CHECKS.keys()
