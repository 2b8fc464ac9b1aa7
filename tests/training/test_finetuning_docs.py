"""The recipes in docs/finetuning.md are recipes, and their stages are built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ldmkit_training.before.recipe import build_stage, parse_recipe
from ldmkit_training.stages.ip_adapter.example import write_encoder

PAGE = (Path(__file__).parents[2] / "docs" / "finetuning.md").read_text()
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


@pytest.mark.parametrize("data", BLOCKS, ids=lambda data: data["stage"])
def test_recipes_are_built(data: dict[str, Any], tmp_path: Path) -> None:
    if "ip_adapter" in data:
        write_encoder(tmp_path / data["ip_adapter"]["encoder"])
    stage = build_stage(parse_recipe(data), tmp_path)
    assert sum(p.numel() for turn in stage.turns.values() for p in turn.parameters() if p.requires_grad) > 100
