"""What acts in a later phase is run once before step 1, and leaves no trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from ldmkit_training.engine import Engine
from ldmkit_training.recipe import build_stage

from ldmkit.errors import LdmkitError


@pytest.mark.parametrize("start", [0, 5, 50001])
def test_a_discriminator_too_deep_for_the_pictures_is_refused_before_step_1(tmp_path: Path, start: int) -> None:
    deep = f"objective.discriminator={{width: 8, layers: 6, start: {start}}}"
    with pytest.raises(LdmkitError, match="discriminator"):
        tiny.train(tiny.codec_recipe(tmp_path / "run", deep))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_rehearsal_changes_nothing(tmp_path: Path, norm: str) -> None:
    recipe = tiny.codec_recipe(tmp_path / "run", f"objective.discriminator.norm={norm}")
    engine, fresh = Engine(recipe, tmp_path), build_stage(recipe, tmp_path)
    for name, turn in engine.stage.turns.items():
        own, wanted = turn.state_dict(), fresh.turns[name].state_dict()
        assert own.keys() == wanted.keys() and all(torch.equal(own[key], wanted[key]) for key in own)
        assert turn.training and all(p.grad is None for p in turn.parameters())
