"""What is said twice, or beside a file of prompts, is refused by name: nothing that was asked for is dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_parts
import torch
from PIL import Image

import ldmkit
from ldmkit.cli import main
from ldmkit.run.recipe import read_recipe


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_parts.class_pipeline().save(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def pipe(model: Path) -> ldmkit.Pipeline:
    return ldmkit.load(model)


def sample(model: Path, *words: object) -> int:
    return main(["sample", str(model), "--steps", "1", *map(str, words)])


@pytest.mark.parametrize(("request_", "common", "code"), [
    ({"seed": 5, "seeds": [6]}, {}, "input.argument-twice"),
    ({}, {"seed": 5, "seeds": [6]}, "input.argument-twice"),
    (None, {}, "input.not-a-mapping"),
])  # fmt: skip
def test_requests_that_are_refused(pipe: ldmkit.Pipeline, request_: Any, common: dict[str, Any], code: str) -> None:
    given = request_ if request_ is None else {"inputs": {"label": 1}, **request_}
    (one,) = pipe.many([given], steps=1, **common)
    assert one.output is None and one.error is not None and one.error.code == code


@pytest.mark.parametrize(("own", "common", "seed"), [
    ({"seed": 5}, {}, 5), ({"seeds": [6]}, {}, 6), ({"seeds": 7}, {}, 7), ({}, {"seed": 8}, 8), ({}, {"seeds": [9]}, 9),
    ({"seed": 5}, {"seeds": [9]}, 5), ({"seeds": [6]}, {"seed": 8}, 6),
])  # fmt: skip
def test_whose_seed(pipe: ldmkit.Pipeline, own: dict[str, Any], common: dict[str, Any], seed: int) -> None:
    (one,) = pipe.many([{"inputs": {"label": 1}, **own}], steps=1, **common)
    assert one.output is not None and one.output.recipes[0]["seed"] == seed
    assert torch.equal(one.output.latents, pipe({"label": 1}, seeds=seed, steps=1).latents)


def test_lines(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        '{"label": 1, "seeds": [3]}', '{"label": 1, "seed": 4, "seeds": [3]}', '{"inputs": {"label": 1}, "label": 2}',
        "null", '["a"]', '{"inputs": [{"label": 1}]}', '{"inputs": null}', '{"inputs": {"label": 2}}',
    ]  # fmt: skip
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    words = ["--prompts", tmp_path / "p.jsonl", "--seed", 50, "--json"]
    for out, names in ((tmp_path / "o", ("000000.png", "000007.png")), (tmp_path / "o.png", ("o-0.png", "o-7.png"))):
        assert sample(model, *words, "--out", out) == 2
        said = json.loads(capsys.readouterr().out)
        assert said["indices"] == [0, 7] and tuple(Path(path).name for path in said["paths"]) == names
        assert [read_recipe(path)["seed"] for path in said["paths"]] == [3, 57]
        codes = {failed["index"]: failed["code"] for failed in said["failed"]}
        twice, line = "input.argument-twice", "input.prompts-line"
        assert codes == {1: twice, 2: twice, 3: line, 4: line, 5: line, 6: line}


@pytest.mark.parametrize(("file", "words", "named"), [
    ("p.jsonl", ["-n", "3"], "--number"),
    ("p.txt", ["--label", "1"], "--label"),
    ("p.jsonl", ["--negative", "label=1", "--negative", "label=2"], "--negative"),
    ("p.jsonl", ["--start", "a.png", "--start", "b.png"], "--start"),
])  # fmt: skip
def test_options_beside_a_file(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, words: list[str], named: str
) -> None:
    (tmp_path / file).write_text('{"label": 1}\n' if file == "p.jsonl" else "1\n")
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    words = [str(tmp_path / word) if word.endswith(".png") else word for word in words]
    assert sample(model, "--prompts", tmp_path / file, "--out", tmp_path / "o", *words, "--json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "input.option-conflict" and named in json.dumps(error)
    assert not (tmp_path / "o").exists()


def test_several_starts_and_negatives_are_a_picture_each(
    model: Path, pipe: ldmkit.Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8) for seed in range(3)]
    starts: list[object] = []
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        starts += ["--start", tmp_path / f"{i}.png"]
    words = ["--label", 1, "--guidance", 2, *starts, *(w for i in range(3) for w in ("--negative", f"label={i}"))]
    options: dict[str, Any] = {"steps": 1, "guidance": 2.0, "negative": [{"label": i} for i in range(3)]}
    options |= {"start": [{"image": image, "strength": 1.0} for image in images]}
    want = pipe({"label": 1}, seeds=[4, 5, 6], **options).pil()
    for out in (["--out", tmp_path / "o"], ["--out", tmp_path / "o.png", "--batch", 2]):
        assert sample(model, *words, "--strength", 1.0, "--seed", 4, *out) == 0
    for i, picture in enumerate(want):
        for path in (tmp_path / "o" / f"00000{i}.png", tmp_path / f"o-{i}.png"):
            assert np.abs(np.asarray(Image.open(path), int) - np.asarray(picture, int)).max() <= 1  # batches of 2 and 3
    capsys.readouterr()
    assert sample(model, *words, "-n", 5, "--out", tmp_path / "p", "--json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "input.batch-mismatch" and "3 of them for 5 pictures" in error["what"]
