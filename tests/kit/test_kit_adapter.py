"""The adapter suite catches every broken adapter, and passes correct ones that know nothing of the in-tree parts."""

from __future__ import annotations

from typing import Any

import pytest
from broken_adapter import BROKEN
from good_adapter import Nudge
from low_cache import EveryOther
from low_rank import LowRank

from ldmkit.testing import check_adapter
from ldmkit.testing.adapter.checks import subject
from ldmkit.testing.checks import checks, run

CHECKS = {one.name: one for one in checks("adapter")}
CASES = [(name, cls) for name, classes in BROKEN.items() for cls in classes]
UNET = {
    "type": "unet",
    "config": {
        "channels": 3,
        "widths": (8, 16),
        "blocks": 1,
        "norm_groups": 4,
        "heads": 2,
        "attention": ("self", "none"),
    },
}


def test_a_correct_adapter_passes() -> None:
    for example in Nudge.examples:
        found = check_adapter(Nudge, example.config).require()
        assert sum(one.status == "passed" for one in found.outcomes) > 20


def test_one_that_can_be_fused_passes() -> None:
    for example in LowRank.examples:
        found = check_adapter(LowRank, example.config).require()
        assert {one.check.name: one.status for one in found.outcomes}["fused"] == "passed"


def test_one_that_taps_gates_passes() -> None:
    found = check_adapter(EveryOther).require()
    assert {one.check.name: one.status for one in found.outcomes}["caches"] == "passed"


def test_the_denoiser_is_that_of_the_example() -> None:
    """A U-Net has no port `linear.mid.to_q`."""
    found = {one.check.name: one for one in check_adapter(Nudge, {}, denoiser=UNET).failures}
    assert "UNet" in found["taps"].expected and "linear.mid.to_q" in found["taps"].came


@pytest.mark.parametrize(("name", "cls"), CASES, ids=[f"{name}-{cls.__name__}" for name, cls in CASES])
def test_broken_adapters_are_caught(name: str, cls: Any) -> None:
    found = run(CHECKS[name], subject(cls, cls.examples[0]))
    assert found.status == "failed", str(found)
    assert found.expected and found.came and found.check.docs.endswith(f"#adapter-{name}")


def test_every_check_has_a_broken_adapter() -> None:
    assert BROKEN.keys() == CHECKS.keys()
