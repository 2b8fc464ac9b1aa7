"""The recipes in docs/training.md are recipes, and what it says of keys is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ldmkit_training.before.recipe import MAY_CHANGE, Recipe, build_stage, parse_recipe
from ldmkit_training.loop.interrupts import INTERRUPTED_SAVED

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "training.md").read_text()
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
WHOLE = [block for block in BLOCKS if "stage" in block]
for _block in WHOLE:
    if _block["stage"] == "denoiser":  # the page's codec is not trained here
        _block["model"]["codec"] = {"type": "identity"}
        _block["model"]["denoiser"]["config"]["channels"] = 3
PIECES = [block for block in BLOCKS if "stage" not in block]


@pytest.mark.parametrize("data", WHOLE, ids=lambda data: data["stage"])
def test_whole_recipes_are_built(data: dict[str, Any], tmp_path: Path) -> None:
    if data["stage"] == "proposer":
        words = {"type": "ldm-text", "config": {"vocab_size": 192, "dim": 128, "layers": 1}}
        (second,) = [block for block in WHOLE if block["stage"] == "denoiser"]
        model = {**second["model"], "conditioners": {**second["model"]["conditioners"], "text": words}}
        model["denoiser"] = {**model["denoiser"], "config": {**model["denoiser"]["config"], "context_join": "length"}}
        start = build_stage(parse_recipe({**second, "model": model}), tmp_path)
        (tmp_path / data["model"]["start"]).parent.mkdir(parents=True)
        start.save(tmp_path / data["model"]["start"])
    stage = build_stage(parse_recipe(data), tmp_path)
    assert sum(p.numel() for turn in stage.turns.values() for p in turn.parameters()) > 100_000


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: next(iter(piece)))
def test_pieces_fit_into_a_recipe(piece: dict[str, Any]) -> None:
    assert parse_recipe({**WHOLE[0], **piece}).steps > 0


def test_the_defaults_are_the_defaults() -> None:
    (listed,) = [piece for piece in PIECES if len(piece) > 3]
    plain = parse_recipe(WHOLE[0] | {"optimiser": {}, "schedule": {}} | {"schedule": {"type": "constant"}})
    given = parse_recipe({**WHOLE[0], **listed})
    shown = [name for name in Recipe.model_fields if name in listed and name != "steps"]
    assert len(shown) >= 10
    assert [name for name in shown if getattr(plain, name) != getattr(given, name)] == []


def test_what_may_change_is_listed() -> None:
    section = PAGE.split("## Stopping and going on")[1].split("##")[0]
    assert [key for key in MAY_CHANGE if f"`{key}`" not in section] == []


def test_exit_codes() -> None:
    assert f"; {INTERRUPTED_SAVED} stopped by a signal" in PAGE
    assert f"| {INTERRUPTED_SAVED} |" in (DOCS / "cli.md").read_text()
