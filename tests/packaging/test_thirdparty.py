"""A distribution written against the first version of the contracts, frozen: it works unchanged, from its wheel."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from environments import ROOT, environment, run, wheel_of

from ldmkit.plugins.kinds import GROUPS

FOLDER = ROOT / "tests" / "thirdparty"
KINDS = set(GROUPS) - {"stage", "cache", "extractor", "captioner", "rewriter"}
"""What there was to write parts of when it was frozen."""
FROZEN = {"v1": "c5e34ff6200247d99bb88b87adbf97ec", "v2": "d3ff16d7470fabd27af91b45c4107c19"}
"""Folder -> its checksum. A new version of the contracts gets a new folder; these stay as they are."""


def checksum(folder: Path) -> str:
    """Of all files, by path and content; what building and running leave behind is left out."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and "__pycache__" not in name and ".egg-info" not in name:
            total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:32]


@pytest.mark.parametrize("version", FROZEN)
def test_the_folder_is_frozen(version: str) -> None:
    assert checksum(FOLDER / version) == FROZEN[version], (
        f"tests/thirdparty/{version} is what others have built on: put it back as it was. If ldmkit no longer works "
        f"with it, ldmkit is what must be mended; a new version of the contracts goes into a new folder beside it."
    )


def test_every_frozen_folder_is_listed() -> None:
    assert {path.name for path in FOLDER.glob("v*")} == set(FROZEN)


def test_a_changed_file_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    before = checksum(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("")
    assert checksum(tmp_path) == before
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    renamed = checksum(tmp_path)
    (tmp_path / "b.py").write_text("x = 2\n")
    assert len({before, renamed, checksum(tmp_path)}) == 3


@pytest.fixture(scope="module")
def found(home_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `thirdparty_use.py` finds in a new environment with both wheels."""
    folder = tmp_path_factory.mktemp("thirdparty")
    python = environment(folder / "env", [home_wheel, wheel_of(FOLDER / "v1", folder / "v1")])
    (folder / "work").mkdir()
    said = run(python, Path(__file__).with_name("thirdparty_use.py"), "work", cwd=folder)
    (line,) = (line for line in said.splitlines() if line.startswith("RESULT "))
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    assert "site-packages" in result["ldmkit"], "the checkout is not to be seen"
    return result


def test_all_of_it_is_found(found: dict[str, Any]) -> None:
    assert set(found["listing"].values()) == {"ok"}
    kinds = {name.split(":")[0] for name in found["listing"]}
    assert kinds == {*KINDS, "hooks", "command", "model"}, "one part of each kind, and whatever else a plugin may add"


def test_a_pipeline_of_its_own_parts(found: dict[str, Any]) -> None:
    wanted = {"finite": True, "shape": [2, 3, 8, 8], "same": True, "listens": True, "from": ["thirdparty-v1"]}
    assert found["own_parts"] == wanted


def test_its_saved_pipeline_draws_what_it_drew(found: dict[str, Any]) -> None:
    # float32, of the largest value: sums over 8 channels in another order, through 7 evaluations and a scale of 3
    assert found["frozen"]["off"] < 1e-4
    assert found["frozen"]["replay"] <= 1


def test_its_parts_with_ours(found: dict[str, Any]) -> None:
    assert set(found["mixed"].values()) == {True}, found["mixed"]


def test_both_stages_train(found: dict[str, Any]) -> None:
    assert found["trained"] is True, found["trained"]


def test_its_classifier_guides(found: dict[str, Any]) -> None:
    assert found["judged"] == {"moved": True, "names": ["dark", "light"]}, found["judged"]


def test_its_command_and_hooks(found: dict[str, Any]) -> None:
    assert found["commands"].endswith(" of kind codec\n") and found["hooks"] == {"pipelines": 1, "steps": 2}


def test_it_keeps_todays_contracts(found: dict[str, Any]) -> None:
    """The contract kit may gain checks; those that a part of the first version fails are too strict."""
    assert {name.split(":")[0] for name in found["kit"]} == KINDS
    assert {name: text for name, text in found["kit"].items() if text} == {}
