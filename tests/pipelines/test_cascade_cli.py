"""Cascades at the command line: options per stage, one's own picture, many pictures, exact replay; and as a stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cascade_parts
import pytest
import torch
from PIL import Image

import ldmkit
from ldmkit.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cascade_parts.cascade().save(tmp_path_factory.mktemp("models") / "two")


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, Any]:
    code = main([*map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_options_per_stage_and_exact_replay(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.png"
    staged = ["--stage", "up.steps=2", "--stage", "up.sampler=ddim:eta=0.5", "--stage", "base.guidance=2"]
    code, said = run(capsys, "sample", folder, "--label", "3", "--seed", "4", "--steps", "3", *staged, "-o", out)
    assert code == 0 and said["evaluations"] == 5 and said["rows"] == 2
    calls = ldmkit.read_recipe(out)["stages"]
    assert (calls["base"]["steps"], calls["up"]["steps"]) == (3, 2)
    assert calls["up"]["sampler"]["config"]["eta"] == 0.5 and calls["base"]["guidance"]["type"] == "cfg"
    options: dict[str, Any] = {"base": {"guidance": 2.0}, "up": {"steps": 2, "sampler": {"type": "ddim", "eta": 0.5}}}
    drawn = ldmkit.Cascade.load(folder)({"label": 3}, seeds=[4], steps=3, stages=options)
    assert drawn.recipes[0]["stages"] == calls
    code, said = run(capsys, "replay", out, "--trust")
    assert code == 0 and said == {"largest_difference": 0, "changed_parts": {}}


def test_begin_and_stop(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    assert run(capsys, "sample", folder, "--label", 3, "--last", "base", "-o", small)[0] == 0
    assert list(ldmkit.read_recipe(small)["stages"]) == ["base"] and Image.open(small).size == (8, 8)
    assert run(capsys, "sample", folder, "--label", 3, "--first", "up", "--low", small, "-o", large)[0] == 0
    assert run(capsys, "replay", large, "--trust")[1]["largest_difference"] == 0
    assert run(capsys, "replay", small, "--trust")[1]["largest_difference"] == 0


def test_inputs_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(folder), "--inputs"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["label", "low"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--stage", "up.stpes=2"], "input.stage-argument"),
        (["--stage", "steps=2"], "input.stage-argument"),
        (["--stage", "up.steps"], "input.stage-argument"),
        (["--stage", "up.steps=two"], "input.steps-type"),
        (["--stage", "up.steps=2", "--stage", "up.steps=3"], "input.option-twice"),
        (["--stage", "pu.steps=2"], "input.unknown-stage"),
        (["--first", "pu"], "input.unknown-stage"),
        (["--size", "8"], "input.stage-option"),
        (["--lwo", "a.png"], "input.unknown-option"),
    ],
)
def test_refusals(
    folder: Path, tmp_path: Path, words: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = run(capsys, "sample", folder, "--label", 3, "-o", tmp_path / "a.png", *words)
    assert status == 2 and said["error"]["code"] == code
    assert not (tmp_path / "a.png").exists()


def test_stages_are_of_cascades_alone(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = run(
        capsys, "sample", folder / "base", "--label", 3, "--stage", "up.steps=2", "-o", tmp_path / "a.png"
    )
    assert status == 2 and said["error"]["code"] == "input.unknown-argument"
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    status, said = run(capsys, "encode", folder, tmp_path / "b.png", "-o", tmp_path / "b.safetensors")
    assert status != 0 and said["error"]["code"] == "source.cascade"


def test_many_into_a_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "many"
    words = ["sample", folder, "--label", 3, "-n", 5, "--batch", 2, "--stage", "up.steps=2", "-o", out]
    code, said = run(capsys, *words)
    assert code == 0 and len(said["paths"]) == 5 and said["failed"] == []
    (out / "000003.png").unlink()
    code, said = run(capsys, *words)
    assert code == 0 and said["present"] == 4 and [Path(path).name for path in said["paths"]] == ["000003.png"]
    code, said = run(capsys, *[{"up.steps=2": "up.steps=1"}.get(str(word), word) for word in words])
    assert code != 0 and {one["code"] for one in said["failed"]} == {"input.other-output"}


def test_many_is_each_by_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cascade = ldmkit.Cascade.load(folder)
    requests: list[Any] = [
        {"inputs": {"label": i % 5}, "seed": i, "stages": {"up": {"steps": 1 + i // 3}}} for i in range(6)
    ]
    requests.insert(2, {"inputs": {"label": 99}, "seed": 0, "stages": {"up": {"steps": 1}}})
    requests.insert(4, "nothing")
    rows: list[int] = []
    real = ldmkit.Cascade.run

    def counted(self: Any, prepared: Any, on_step: Any = None) -> Any:
        rows.append(prepared.calls[0].asked.request.batch)
        return real(self, prepared, on_step)

    monkeypatch.setattr(ldmkit.Cascade, "run", counted)
    drawn = list(cascade.many(requests, batch=4, guidance=2.0))
    assert [one.index for one in drawn] == list(range(8)) and max(rows) > 1
    assert [one.index for one in drawn if one.error is not None] == [2, 4]
    for one in drawn:
        if one.output is not None:
            request = one.request
            alone = cascade(request["inputs"], seeds=[request["seed"]], stages=request["stages"], guidance=2.0)
            assert torch.allclose(one.output.images, alone.images, rtol=0, atol=1e-5)  # see test_cascade.TOLERANCE
            assert one.output.recipes == alone.recipes == (cascade.recipe(request["inputs"], seeds=[request["seed"]],
                stages=request["stages"], guidance=2.0),)  # fmt: skip
