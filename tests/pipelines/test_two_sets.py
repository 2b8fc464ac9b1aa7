"""A checkpoint with raw and averaged weights: the one that the original takes, or a word about the choice."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_original_options import UNET, written

import ldmkit

FIRST = "model.diffusion_model.input_blocks.0.0.weight"


def both(folder: Path, updates: int = 7, same: bool = False, **params: Any) -> Path:
    """A checkpoint and its yaml; the averaged weights are half of the raw ones."""
    path = written(folder, UNET, **params)
    state = torch.load(path)["state_dict"]
    shadows = {f"model_ema.{k.removeprefix('model.').replace('.', '')}": v if same else v / 2 for k, v in state.items()}
    counts = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(updates, dtype=torch.int)}
    torch.save({"state_dict": {**state, **shadows, **counts}}, path)
    return path


def taken(path: Path, **options: Any) -> tuple[str, list[str]]:
    """Which set was loaded, and what was warned of."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        pipe = ldmkit.load(path, **options)
    raw = torch.load(path)["state_dict"][FIRST]
    own = dict(pipe.denoiser.named_parameters())["conv_in.weight"]
    assert torch.equal(own, raw) or torch.equal(own, raw / 2)
    return "raw" if torch.equal(own, raw) else "averaged", [str(warning.message) for warning in found]


@pytest.mark.parametrize(
    ("params", "ema", "which"),
    [
        ({"use_ema": False}, None, "raw"),
        ({"use_ema": True}, None, "averaged"),
        ({}, None, "averaged"),  # the default of the original's class
        ({"use_ema": False}, True, "averaged"),
        ({"use_ema": True}, False, "raw"),
    ],
)
def test_the_yaml_says_and_the_caller_overrules(tmp_path: Path, params: Any, ema: bool | None, which: str) -> None:
    found, said = taken(both(tmp_path, **params), ema=ema)
    assert found == which and not said


def test_nothing_says(tmp_path: Path) -> None:
    """`use_ema: null` is what the configs told from keys have."""
    found, said = taken(both(tmp_path, use_ema=None))
    assert found == "averaged" and len(said) == 1
    assert "raw and EMA weights that differ, and nothing says which" in said[0]
    assert taken(both(tmp_path, use_ema=None), ema=False) == ("raw", [])
    assert taken(both(tmp_path, use_ema=None, same=True))[1] == []


def test_averages_that_never_were(tmp_path: Path) -> None:
    found, said = taken(both(tmp_path, updates=0))
    assert found == "averaged" and len(said) == 1 and "`model_ema.num_updates` is 0" in said[0]
    assert taken(both(tmp_path, updates=0, use_ema=False)) == ("raw", [])
    assert taken(both(tmp_path, updates=0, same=True))[1] == []


def test_a_word_that_is_none(tmp_path: Path) -> None:
    path = both(tmp_path)
    whole = yaml.safe_load(path.with_suffix(".yaml").read_text())
    whole["model"]["params"]["use_ema"] = "sometimes"
    path.with_suffix(".yaml").write_text(yaml.safe_dump(whole))
    with pytest.raises(ldmkit.SourceError, match=r"use_ema.*sometimes"):
        ldmkit.load(path)
