"""The codec suite catches every broken codec, and passes correct ones that know nothing of the in-tree parts."""

from __future__ import annotations

from typing import Any

import pytest
from broken_codec import BROKEN
from good_codec import Halves, PatchCodec, Unshuffled

from ldmkit.testing import check_codec
from ldmkit.testing.checks import checks, run
from ldmkit.testing.codec.checks import subject

CHECKS = {one.name: one for one in checks("codec")}
CASES = [(name, cls) for name, classes in BROKEN.items() for cls in classes]


@pytest.mark.parametrize("cls", [PatchCodec, Unshuffled, Halves])
def test_correct_codecs_pass(cls: Any) -> None:
    for example in cls.examples:
        found = check_codec(cls, example.config, trained=example.trained).require()
        assert sum(one.status == "passed" for one in found.outcomes) > 15


@pytest.mark.parametrize(("name", "cls"), CASES, ids=[f"{name}-{cls.__name__}" for name, cls in CASES])
def test_broken_codecs_are_caught(name: str, cls: Any) -> None:
    found = run(CHECKS[name], subject(cls, cls.examples[0]))
    assert found.status == "failed", str(found)
    assert found.expected and found.came and found.check.docs.endswith(f"#codec-{name}")


def test_every_check_has_a_broken_codec() -> None:
    assert BROKEN.keys() == CHECKS.keys()
