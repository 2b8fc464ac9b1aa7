"""`ldmkit sample` with a file of prompts, into a folder: resumed by what is there, and no line costs another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_parts

from ldmkit.cli import main
from ldmkit.run.recipe import read_recipe

LINES = (
    '{"label": 1, "seed": 50}',
    '{"label": 2, "steps": 3}',
    '{"inputs": {"label": 3}, "sampler": "euler", "size": 16}',
    '{"label": 1}',
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_parts.class_pipeline().save(tmp_path_factory.mktemp("model") / "model")


def sample(model: Path, *words: object) -> int:
    return main(["sample", str(model), *map(str, words)])


def test_a_line_is_a_picture_and_what_is_there_stays(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "pictures"
    prompts.write_text("\n".join(LINES[:2]) + "\n")
    assert sample(model, "--prompts", prompts, "--out", out, "--steps", 2, "--seed", 7) == 0
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(first) == ["000000.png", "000001.png"]
    recipes = [read_recipe(out / name) for name in sorted(first)]
    assert [recipe["seed"] for recipe in recipes] == [50, 8] and [recipe["steps"] for recipe in recipes] == [2, 3]
    prompts.write_text("\n".join(LINES) + "\n")
    capsys.readouterr()
    assert sample(model, "--prompts", prompts, "--out", out, "--steps", 2, "--seed", 7, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["present"] == 2 and [Path(path).name for path in said["paths"]] == ["000002.png", "000003.png"]
    assert {name: (out / name).read_bytes() for name in first} == first
    third = read_recipe(out / "000002.png")
    assert third["sampler"]["type"] == "euler" and third["size"] == [16, 16] and third["seed"] == 9


def test_a_picture_of_another_request_is_not_taken_for_ones_own(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(LINES[0])
    assert sample(model, "--prompts", prompts, "--out", tmp_path / "a", "--steps", 2) == 0
    before = (tmp_path / "a" / "000000.png").read_bytes()
    assert sample(model, "--prompts", prompts, "--out", tmp_path / "a", "--steps", 3) == 2
    assert "[input.other-output]" in capsys.readouterr().err
    assert (tmp_path / "a" / "000000.png").read_bytes() == before
    assert sample(model, "--prompts", prompts, "--out", tmp_path / "a", "--steps", 3, "--overwrite") == 0
    assert read_recipe(tmp_path / "a" / "000000.png")["steps"] == 3


def test_bad_lines_are_reported_and_the_others_drawn(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"label": 1}\nnot json\n[1]\n{"label": 99}\n{"label": 1, "cfg": 2}\n{"label": 2}\n')
    assert sample(model, "--prompts", prompts, "--out", tmp_path / "a", "--steps", 1) == 3
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["000000.png", "000005.png"]
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert [error.partition(":")[0] for error in errors] == [f"error line {line}" for line in (2, 3, 4, 5)]


def test_many_seeds_in_batches(model: Path, tmp_path: Path) -> None:
    assert sample(model, "--label", 1, "-n", 5, "--batch", 2, "--steps", 1, "--out", tmp_path / "a.png") == 0
    paths = [tmp_path / f"a-{i}.png" for i in range(5)]
    assert [read_recipe(path)["seed"] for path in paths] == [0, 1, 2, 3, 4]
    assert sample(model, "--label", 1, "-n", 5, "--batch", 2, "--steps", 1, "--out", tmp_path / "a.png") == 0
    assert (tmp_path / "a-9.png").exists()


@pytest.mark.parametrize(("name", "text", "code"), [
    ("prompts.csv", "1", "input.prompts-type"),
    ("none.jsonl", None, "input.not-found"),
    ("latin.txt", "caf\xe9", "input.not-utf8"),
])  # fmt: skip
def test_files_that_are_no_prompts(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str | None, code: str
) -> None:
    if text is not None:
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    assert sample(model, "--prompts", tmp_path / name, "--out", tmp_path / "a") == 2
    assert f"[{code}]" in capsys.readouterr().err
