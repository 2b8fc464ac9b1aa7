"""`sample --extract`, lines of prompts that say it, `replay` without any file, and `ldmkit extract`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_diffusers as tiny
import torch
from ldmkit_extractors.canny import Canny
from ldmkit_extractors.hed import Network
from PIL import Image

import ldmkit
from ldmkit.cli import main
from ldmkit.testing.extractor import drawing

Capture = pytest.CaptureFixture[str]
SAMPLE = ["--text", "a house", "--steps", "2", "--seed", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(tiny.controlnet_pipeline(), tmp_path_factory.mktemp("published") / "control")


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photograph in the folder that commands are run in."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(ldmkit.to_levels(drawing((32, 32)))).save("photo.png")
    return Path("photo.png")


def error(capsys: Capture, *arguments: object) -> str:
    assert main([*map(str, arguments), "--json"]) != 0
    return str(json.loads(capsys.readouterr().out)["error"]["code"])


def pixels(path: str) -> list[int]:
    return list(np.asarray(Image.open(path)).ravel())


def test_the_hint_that_is_made_on_the_fly_is_the_one_in_a_file(folder: Path, photo: Path, capsys: Capture) -> None:
    assert main(["extract", "canny:low=20,high=60", "photo.png", "hint.png"]) == 0
    assert "hint.png: 32 x 32" in capsys.readouterr().out
    wanted = Canny(low=20, high=60).extract(drawing((32, 32)))
    assert torch.equal(ldmkit.read_picture("hint.png"), wanted) and float(wanted.max()) == 1
    assert main(["sample", str(folder), "--hint", "hint.png", *SAMPLE, "-o", "a.png"]) == 0
    for number, said in enumerate(["canny:low=20,high=60", "hint=canny:low=20,high=60"]):
        assert (
            main(["sample", str(folder), "--hint", "photo.png", "--extract", said, *SAMPLE, "-o", f"b{number}.png"])
            == 0
        )
        assert pixels("a.png") == pixels(f"b{number}.png")
    assert main(["sample", str(folder), "--hint", "photo.png", "--extract", "canny", *SAMPLE, "-o", "c.png"]) == 0
    assert pixels("a.png") != pixels("c.png")


def test_replay_needs_no_file(folder: Path, photo: Path, capsys: Capture) -> None:
    assert main(["sample", str(folder), "--hint", "photo.png", "--extract", "canny", *SAMPLE, "-o", "a.png"]) == 0
    photo.unlink()
    capsys.readouterr()
    assert main(["replay", "a.png", "--model", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] == 0


def test_recipes_may_not_name_files_elsewhere(folder: Path, photo: Path, tmp_path: Path) -> None:
    pipe = ldmkit.load(folder)
    hint = {"picture": str(photo.absolute()), "extract": "canny"}
    recipe = {**pipe.recipe({"text": "a", "hint": hint}, steps=1), "inputs": {"text": "a", "hint": hint}}
    with pytest.raises(ldmkit.SourceError, match=r"recipe-needs.*photo\.png"):
        ldmkit.replay(pipe, recipe, folder=tmp_path / "elsewhere")
    drawn = ldmkit.replay(pipe, recipe, folder=tmp_path)
    assert drawn.recipes[0]["inputs"]["hint"]["picture"].startswith("data:")


def test_lines_of_prompts(folder: Path, photo: Path, capsys: Capture) -> None:
    """A line that says how is extracted so, one that gives a picture by `--extract`."""
    lines: list[dict[str, Any]] = [
        {"text": "a", "hint": {"picture": "photo.png", "extract": {"type": "canny", "config": {"low": 20.0}}}},
        {"text": "b", "hint": "photo.png", "seed": 7},
        {"text": "c"},
    ]
    Path("lines.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    draw = ["sample", str(folder), "--prompts", "lines.jsonl", "--steps", "2", "--out", "drawn"]
    assert main([*draw, "--extract", "hint=canny:high=90", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["present"] == 0
    found = [ldmkit.read_recipe(f"drawn/00000{number}.png")["inputs"] for number in range(3)]
    assert [inputs.get("hint", {}).get("extract", {}).get("config", {}).get("low") for inputs in found] == [
        20,
        100,
        None,
    ]
    assert found[1]["hint"]["extract"]["config"]["high"] == 90
    assert main([*draw, "--extract", "hint=canny:high=90", "--json"]) == 0  # again: all of them are there
    assert json.loads(capsys.readouterr().out)["present"] == 3
    assert main([*draw, "--extract", "hint=canny:high=80", "--json"]) == 2
    [failed] = json.loads(capsys.readouterr().out)["failed"]
    assert (failed["index"], failed["code"]) == (1, "input.other-output")


def test_several_pictures_of_one_hint(folder: Path, photo: Path) -> None:
    """In batches into a folder, each is the picture of its seed."""
    options = ["--hint", "photo.png", "--extract", "canny", "--text", "a", "--steps", "2"]
    assert main(["sample", str(folder), *options, "-n", "3", "--batch", "2", "--out", "drawn"]) == 0
    assert main(["sample", str(folder), *options, "--seed", "2", "--out", "alone.png"]) == 0
    recipes = [ldmkit.read_recipe(path) for path in ("drawn/000002.png", "alone.png")]
    assert recipes[0]["inputs"] == recipes[1]["inputs"] and recipes[0]["seed"] == recipes[1]["seed"] == 2
    assert pixels("drawn/000002.png") == pixels("alone.png")


def test_hints_of_other_things_than_pictures(folder: Path, photo: Path, capsys: Capture) -> None:
    """Keypoints, labels and holes: on the fly as from the file that `ldmkit extract` writes."""
    points = np.random.default_rng(0).integers(4, 28, (18, 2)).tolist()
    people = {"people": [{"pose_keypoints_2d": [number for x, y in points for number in (x, y, 1)]}]}
    Path("pose.json").write_text(json.dumps(people), encoding="utf-8")
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32) % 150).save("labels.png")
    Image.fromarray(np.eye(32, dtype=np.uint8) * 255).save("mask.png")
    hole = json.dumps({"image": "photo.png", "mask": "mask.png"})
    cases = [
        ("pose.json", "pose:size=[32,32]", "a.png"),
        ("labels.png", "segmentation", "b.png"),
        (hole, "inpaint", "c.npy"),
    ]
    for source, extractor, file in cases:
        assert main(["extract", extractor, source, file]) == 0
        assert main(["sample", str(folder), "--hint", file, *SAMPLE, "-o", "file.png", "--overwrite"]) == 0
        fly = ["sample", str(folder), "--hint", source, "--extract", extractor, *SAMPLE, "-o", "fly.png", "--overwrite"]
        assert main(fly) == 0
        assert pixels("file.png") == pixels("fly.png")
        capsys.readouterr()
        assert main(["replay", "fly.png", "--model", str(folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["largest_difference"] == 0
    assert error(capsys, "extract", "inpaint", hole, "hole.png") == "input.hint-masked"
    assert not Path("hole.png").exists()


REFUSED: dict[str, tuple[list[str], str]] = {
    "no such extractor": (["--hint", "photo.png", "--extract", "cany"], "plugin.unknown"),
    "no such option": (["--hint", "photo.png", "--extract", "canny:lo=3"], "spec.unknown-key"),
    "no such input": (["--hint", "photo.png", "--extract", "edge=canny"], "input.unknown-input"),
    "no picture": (["--extract", "canny"], "input.extract-idle"),
    "twice": (["--hint", "photo.png", "--extract", "canny", "--extract", "hint=canny"], "input.option-twice"),
    "empty": (["--hint", "photo.png", "--extract", ""], "input.option-empty"),
    "no name": (["--hint", "photo.png", "--extract", "=canny"], "input.option-empty"),
    "no file": (["--hint", "nowhere.png", "--extract", "canny"], "input.picture-missing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(folder: Path, photo: Path, capsys: Capture, name: str) -> None:
    options, code = REFUSED[name]
    assert error(capsys, "sample", folder, *SAMPLE, *options) == code
    assert not Path("out.png").exists()


def test_a_model_without_pictures(photo: Path, capsys: Capture) -> None:
    assert error(capsys, "sample", "--label", "lake", "--extract", "canny") == "input.extract-which"


def test_the_command_s_refusals(photo: Path, capsys: Capture) -> None:
    assert error(capsys, "extract", "cany", "photo.png", "hint.png") == "plugin.unknown"
    assert error(capsys, "extract", "canny:lo=1", "photo.png", "hint.png") == "spec.unknown-key"
    assert error(capsys, "extract", "canny", "nowhere.png", "hint.png") == "input.picture-missing"
    assert error(capsys, "extract", "canny", "photo.png", "hint.jpg") == "input.not-png"
    assert error(capsys, "extract", "canny", "photo.png", "no/hint.png") == "input.no-folder"
    assert [path.name for path in Path().iterdir()] == ["photo.png"]
    assert main(["extract", "canny", "photo.png", "photo.png"]) == 0  # what is there stays
    assert {path.name for path in Path().iterdir()} == {"photo.png", "photo-1.png"}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """HED's weights, at random, in the folder that commands are run in."""
    state = {name: torch.zeros_like(tensor) for name, tensor in Network().state_dict().items()}
    state["block1.convs.0.weight"][0, :, 1, 1], state["block1.convs.1.weight"][0, 0, 1, 1] = 1 / 3, 1 / 255
    state["block1.projection.weight"][0, 0] = 20
    path = tmp_path / "hed.pth"
    torch.save(state, path)
    return path


def test_a_recipe_knows_the_weights_of_its_hint(folder: Path, photo: Path, weights: Path, capsys: Capture) -> None:
    """They are compared by digest, and read from the picture's own folder only unless trusted."""
    options = ["--hint", "photo.png", "--extract", f"hed:weights={weights}"]
    assert main(["sample", str(folder), *options, *SAMPLE, "-o", "a.png"]) == 0
    held = ldmkit.read_recipe("a.png")["inputs"]["hint"]
    assert held["sha256"] == {"weights": hashlib.sha256(weights.read_bytes()).hexdigest()}
    capsys.readouterr()
    assert main(["replay", "a.png", "--model", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] == 0
    Path("elsewhere").mkdir()
    moved = Path("a.png").rename("elsewhere/a.png")
    assert error(capsys, "replay", moved, "--model", folder) == "source.recipe-needs"
    assert main(["replay", str(moved), "--model", str(folder), "--trust"]) == 0
    capsys.readouterr()
    torch.save({**torch.load(weights, weights_only=True), "norm": torch.ones(1, 3, 1, 1)}, weights)
    assert error(capsys, "replay", moved, "--model", folder, "--trust") == "source.other-weights"
    weights.unlink()
    assert error(capsys, "replay", moved, "--model", folder, "--trust") == "source.not-found"


def test_weights_that_are_not_there_are_asked_for(folder: Path, photo: Path, capsys: Capture) -> None:
    for name in ("depth", "hed", "hed:weights=nowhere.pth"):
        assert error(capsys, "sample", folder, "--hint", "photo.png", "--extract", name, *SAMPLE) == "source.no-weights"
        assert error(capsys, "extract", name, "photo.png") == "source.no-weights"
