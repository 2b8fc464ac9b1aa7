"""Keys that cannot take effect are said, and those that can are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from ldmkit_training.preflight import without_effect


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("objective.discriminator.start=6", "objective.discriminator"),
        ("objective.discriminator.start=5", None),
        ("data.validation=null", "validation"),
        ("schedule.warmup=6", "schedule.warmup"),
        ("schedule.warmup=5", None),
    ],
)
def test_said_or_not(tmp_path: Path, override: str, key: str | None) -> None:
    said = without_effect(tiny.codec_recipe(tmp_path, override))  # six steps
    assert [line.partition(":")[0] for line in said] == ([] if key is None else [key])
