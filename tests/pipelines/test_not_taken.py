"""Arguments that a reader does not look at, and options that stand twice, are refused in every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_diffusers as tiny

import ldmkit
from ldmkit.cli import main


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("folders")
    pipe = tiny.controlnet_pipeline()
    found = {"whole": tiny.saved(pipe, base / "whole"), "vae": base / "vae", "control": base / "control"}
    pipe.vae.save_pretrained(found["vae"])
    pipe.controlnet.save_pretrained(found["control"])
    found["yaml"] = base / "v1-inference.yaml"
    found["yaml"].write_text("model: {target: ldm.models.diffusion.ddpm.LatentDiffusion, params: {}}\n")
    return found


@pytest.mark.parametrize(
    ("read", "which"), [(ldmkit.load, "whole"), (ldmkit.load_codec, "vae"), (ldmkit.load_adapter, "control")]
)
def test_a_config_that_nobody_reads(folders: dict[str, Path], read: Any, which: str) -> None:
    with pytest.raises(ldmkit.InputError, match=r"config=.*does not apply to this format") as error:
        read(folders[which], config=folders["yaml"])
    assert error.value.code == "input.not-taken"


def test_at_the_command_line(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, yaml, out = str(folders["whole"]), str(folders["yaml"]), str(tmp_path / "out")
    for command in (["sample", whole], ["import", whole, "--out", out]):
        assert main([*command, "--config", yaml, "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "input.not-taken"
    assert not Path(out).exists()


TWICE = [
    ["sample", "--seed", "1", "--seed=2"],
    ["sample", "--sampler", "ddim", "--sampler", "euler"],
    ["sample", "--guidance", "2", "--guidance", "3"],
    ["sample", "--steps", "2", "--steps", "3"],
    ["sample", "--size", "64", "--size", "32"],
    ["sample", "--dtype", "float32", "--dtype", "float16"],
    ["sample", "-n", "1", "--number", "2"],
    ["sample", "--ema", "--raw"],
    ["sample", "--out", "a.png", "-o", "b.png"],
    ["sample", "--text", "a", "--text", "b"],
    ["demo", "--seed", "1", "--seed", "2"],
    ["compare", "--grid", "karras", "--grid", "trailing"],
    ["replay", "a.png", "--model", "a", "--model", "b"],
    ["encode", "miniworld", "a.png", "--scale", "1", "--scale", "2"],
    ["plugins", "doctor", "--limit", "3", "--limit", "4"],
]


@pytest.mark.parametrize("line", TWICE, ids=" ".join)
def test_given_twice(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*line, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "input.option-twice"


def test_what_may_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "--inputs", "--json", "--json"]) == 0
    assert "text" in json.loads(capsys.readouterr().out)
    assert main(["--allow", "a", "--allow", "b", "plugins", "--help"]) == 0
