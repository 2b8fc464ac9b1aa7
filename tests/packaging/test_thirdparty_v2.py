"""A distribution with one part of each later ability, frozen: it works unchanged, from its wheel, beside ldmkit's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from environments import environment, run, wheel_of

FOLDER = Path(__file__).resolve().parents[1] / "thirdparty" / "v2"


@pytest.fixture(scope="module")
def found(home_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `thirdparty_use_v2.py` finds in a new environment with both wheels."""
    folder = tmp_path_factory.mktemp("thirdparty-v2")
    python = environment(folder / "env", [home_wheel, wheel_of(FOLDER, folder / "v2")])
    (folder / "work").mkdir()
    said = run(python, Path(__file__).with_name("thirdparty_use_v2.py"), "work", cwd=folder)
    (line,) = (line for line in said.splitlines() if line.startswith("RESULT "))
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    assert "site-packages" in result["ldmkit"], "the checkout is not to be seen"
    return result


def test_all_of_it_is_found(found: dict[str, Any]) -> None:
    assert len(found["listing"]) == 22 and set(found["listing"].values()) == {"ok"}


def test_its_saved_pipeline_draws_what_it_drew(found: dict[str, Any]) -> None:
    drawn = found["frozen"]
    # float32, of the largest value: sums over 8 channels in another order, through 12 evaluations
    assert drawn["latents"] < 1e-4 and drawn["images"] < 1e-3 and drawn["alone"] < 1e-5 and drawn["replay"] <= 1
    assert drawn["again"] and drawn["locked"], "saved and read again; a call that leaves its locks is told"
    assert drawn["proposed"] == ["shift"], "made up for the row that left it out"
    assert drawn["saved"] == ["shift.safetensors", "words.safetensors"], "what is shared is written once"


@pytest.mark.parametrize(
    ("name", "shape", "suffix"), [("vector", [2, 6], ".safetensors"), ("video", [2, 3, 5, 8, 8], ".png")]
)
def test_latents_of_any_rank(found: dict[str, Any], name: str, shape: list[int], suffix: str) -> None:
    wanted = {"shape": shape, "listens": True, "same": True, "replayed": True, "written": suffix}
    assert found["ranks"][name] == wanted


def test_its_decoder_draws(found: dict[str, Any]) -> None:
    assert found["drawn"] == {"order": True, "seeds": True}


def test_samplers_that_ask_for_more(found: dict[str, Any]) -> None:
    assert found["strategies"]["cfg++"] == {"1.0": True, "2.0": False}, "Euler's method where guidance changes nothing"
    assert found["strategies"]["spread"] is True and found["strategies"]["refused"] == "run.no-estimate"


def test_grid_guidance_and_cache(found: dict[str, Any]) -> None:
    kept = found["strategies"]
    assert kept["grid"] == [1.0, pytest.approx(2**0.5)], "(cells / 64) to the power 1/4"
    assert {name for name, same in kept["pushed"].items() if same} == {"off", "never"}
    assert kept["spaces"] is True, "a rule without memory or norms is linear: the same in either space"
    assert kept["reused"] == [2, 2, False]


def test_its_adapters(found: dict[str, Any]) -> None:
    shortened = found["adapters"].pop("shortened")
    assert shortened == [4, 2, False] and set(found["adapters"].values()) == {True}, found["adapters"]


def test_what_is_around_a_hole(found: dict[str, Any]) -> None:
    assert found["known"] == {"size": [8, 12], "kept": True}


def test_it_trains(found: dict[str, Any]) -> None:
    assert found["trained"] == {"stage": ["weights.safetensors"], "denoiser": True}


def test_it_keeps_todays_contracts(found: dict[str, Any]) -> None:
    assert len(found["kit"]) == 21 and {name: text for name, text in found["kit"].items() if text} == {}
