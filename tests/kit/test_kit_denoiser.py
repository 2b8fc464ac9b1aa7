"""The denoiser suite catches every broken denoiser, and passes correct ones that know nothing of the in-tree parts."""

from __future__ import annotations

from typing import Any

import pytest
from broken_denoiser import BROKEN
from good_denoiser import PatchNet

from ldmkit.testing import check_denoiser
from ldmkit.testing.checks import checks, run
from ldmkit.testing.denoiser.checks import subject
from ldmkit.testing.denoiser.tiny import TinyDenoiser

CHECKS = {one.name: one for one in checks("denoiser")}
CASES = [(name, cls) for name, classes in BROKEN.items() for cls in classes]


@pytest.mark.parametrize("cls", [PatchNet, TinyDenoiser])
def test_correct_denoisers_pass(cls: Any) -> None:
    for example in cls.examples:
        found = check_denoiser(cls, example.config).require()
        assert sum(one.status == "passed" for one in found.outcomes) > 30


@pytest.mark.parametrize(("name", "cls"), CASES, ids=[f"{name}-{cls.__name__}" for name, cls in CASES])
def test_broken_denoisers_are_caught(name: str, cls: Any) -> None:
    found = run(CHECKS[name], subject(cls, cls.examples[0]))
    assert found.status == "failed", str(found)
    assert found.expected and found.came and found.check.docs.endswith(f"#denoiser-{name}")


def test_every_check_has_a_broken_denoiser() -> None:
    assert BROKEN.keys() == CHECKS.keys()
