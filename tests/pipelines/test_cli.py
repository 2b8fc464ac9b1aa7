"""The command line in-process, and its exit codes: 0, 2 (input), 3 (model), 4 (plugin), 5 (run), 130 (interrupted)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

import ldmkit
from ldmkit.cli import main
from ldmkit.cli.words import split_words
from ldmkit.models.locate import default_model
from ldmkit.run.recipe import read_recipe

Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, *arguments: object) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def run_json(capsys: Capture, *arguments: object) -> Any:
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    levels = np.random.default_rng(0).integers(0, 256, (14, 19, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_sample_writes_the_same_as_python(
    class_folder: Path, class_pipe: ldmkit.Pipeline, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "a.png"
    options = ["-n", 2, "--seed", 5, "--steps", 3, "--sampler", "dpmpp-2m", "--grid", "karras", "--guidance", 2.5]
    code, text, _ = run(capsys, "sample", class_folder, "--label", 3, *options, "--out", out)
    assert code == 0
    names = [str(tmp_path / f"a-{i}.png") for i in range(2)]
    assert text.splitlines()[:2] == names
    drawn = class_pipe(
        {"label": 3}, seeds=[5, 6], steps=3, sampler="dpmpp-2m", grid="karras", guidance=2.5
    ).pil()  # fmt: skip
    for name, picture in zip(names, drawn, strict=True):
        assert np.array_equal(np.asarray(Image.open(name)), np.asarray(picture))


def test_sample_json_and_defaults(class_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    data = run_json(capsys, "sample", class_folder, "--out", tmp_path / "a.png", "--size", "6x10")
    assert data["paths"] == [str(tmp_path / "a.png")]
    assert data["recipe"]["steps"] == 4 and data["recipe"]["size"] == [6, 10]
    assert {"load_s", "sample_s"} <= data.keys()
    assert Image.open(tmp_path / "a.png").size == (10, 6)


def test_conditions_are_options(scene_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([{"label": "dog", "box": [0.1, 0.2, 0.5, 0.9]}]))
    Image.fromarray(np.full((8, 8), 2, np.uint8)).save(tmp_path / "map.png")
    out = tmp_path / "a.png"
    code, _, err = run(
        capsys, "sample", scene_folder, "--layout", boxes, f"--semantic={tmp_path / 'map.png'}", "--label=2",
        "--set", "layout=3", "label=1.5", "--negative", "label=4", "--out", out,
    )  # fmt: skip
    assert code == 0, err
    recipe = read_recipe(out)
    assert recipe["inputs"]["layout"]["objects"][0]["label"] == "dog"
    assert recipe["inputs"]["label"] == 2 and recipe["negative"] == {"label": 4}
    assert recipe["guidance"]["type"] == "per-condition" and recipe["guidance"]["distribution"] == "ldmkit"
    chained = {"scales": {"layout": 3.0, "label": 1.5}, "composition": "chained", "interval": None}
    assert recipe["guidance"]["config"] == chained
    inline = '[{"label": "dog", "box": [0.1, 0.2, 0.5, 0.9]}]'
    assert run(capsys, "sample", scene_folder, "--layout", inline, "--out", out)[0] == 0


@pytest.mark.parametrize(
    ("words", "model", "rest"),
    [
        (["m", "--label", "3"], "m", ["--label=3"]),
        (["--label", "3", "m"], "m", ["--label=3"]),
        (["--label=3", "m", "text=2"], "m", ["--label=3", "text=2"]),
        (["layout=3", "--text", "a house", "label=1"], None, ["layout=3", "--text=a house", "label=1"]),
        (["--text", "--label", "3"], "3", ["--text=--label"]),
        (["m", "stray"], "m", ["stray"]),
        (["--text"], None, ["--text"]),
        ([], None, []),
    ],
)
def test_the_model_is_the_first_word_by_itself(words: list[str], model: str | None, rest: list[str]) -> None:
    assert split_words(words) == (model, rest)


def test_a_path_with_an_equals_sign_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "a=1").mkdir()
    assert split_words([str(tmp_path / "a=1"), "a=1"]) == (str(tmp_path / "a=1"), ["a=1"])


def test_without_a_model_the_bundled_one_draws(tmp_path: Path, capsys: Capture) -> None:
    name = default_model()
    listed = run_json(capsys, "sample", "--inputs")
    assert "names" in listed["label"] and "names" in listed["layout"]
    out = tmp_path / "a.png"
    label = listed["label"]["names"][1]
    drawn = run_json(capsys, "sample", "--label", label, "--steps", 1, "--out", out, "--set", "label=2")
    assert drawn["recipe"]["model"] == name and read_recipe(out)["inputs"] == {"label": 1}
    code, _, err = run(capsys, "sample", "--lable", label, "--out", out)
    assert code == 2 and f"the model {name} has an option --lable (did you mean 'label'?)" in err


def test_maps_are_palette_files(scene_folder: Path, photo: Path, tmp_path: Path, capsys: Capture) -> None:
    """Indices are labels whatever their colours; a picture of colours is refused, and it is said what would do."""
    levels = np.random.default_rng(0).integers(0, 4, (8, 8), dtype=np.uint8)
    palette = Image.fromarray(levels, "P")
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(levels).save(tmp_path / "grey.png")
    for name in ("palette", "grey"):
        given = ["--semantic", tmp_path / f"{name}.png", "--out", tmp_path / f"out-{name}.png"]
        assert run(capsys, "sample", scene_folder, *given)[0] == 0
    first, second = (np.asarray(Image.open(tmp_path / f"out-{name}.png")) for name in ("palette", "grey"))
    assert np.array_equal(first, second)
    code, _, err = run(capsys, "sample", scene_folder, "--semantic", photo)
    assert code == 2 and "picture-not-labels" in err and "photo.png" in err and "palette" in err


def test_inputs_lists_schemas(scene_folder: Path, capsys: Capture) -> None:
    code, out, _ = run(capsys, "sample", scene_folder, "--inputs")
    schemas = json.loads(out)
    assert code == 0 and list(schemas) == ["layout", "label", "semantic"]
    assert "objects" in json.dumps(schemas["layout"])


def test_start_and_mask(class_folder: Path, photo: Path, tmp_path: Path, capsys: Capture) -> None:
    mask = np.zeros((14, 19), np.uint8)
    mask[:7] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    start = ["--start", photo, "--mask", tmp_path / "mask.png", "--strength", 0.6]
    code, _, err = run(capsys, "sample", class_folder, *start, "--out", tmp_path / "a.png")
    assert code == 0, err
    before, after = np.asarray(Image.open(photo)), np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(before[7:], after[7:]) and not np.array_equal(before[:7], after[:7])


def test_replay(class_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "a.png"
    assert run(capsys, "sample", class_folder, "--label", 1, "--sampler", "ddpm", "--guidance", 2, "--out", out)[0] == 0
    assert run_json(capsys, "replay", out, "--trust") == {"largest_difference": 0, "changed_parts": {}}
    code, text, _ = run(capsys, "replay", out, "--trust", "--out", tmp_path / "b.png")
    assert code == 0 and text == f"largest difference: 0 of 255\n{tmp_path / 'b.png'}\n"
    assert np.array_equal(np.asarray(Image.open(out)), np.asarray(Image.open(tmp_path / "b.png")))


def test_replay_reports_a_changed_picture(class_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "a.png"
    run(capsys, "sample", class_folder, "--label", 1, "--out", out)
    with Image.open(out) as opened:
        levels, text = np.asarray(opened).copy(), opened.text["ldmkit"]
    levels[0, 0, 0] = levels[0, 0, 0] - 7 if levels[0, 0, 0] >= 7 else levels[0, 0, 0] + 7
    info = PngImagePlugin.PngInfo()
    info.add_itxt("ldmkit", text)
    Image.fromarray(levels).save(out, pnginfo=info)
    assert run_json(capsys, "replay", out, "--trust")["largest_difference"] == 7


def test_encode_and_decode(kl_pipe: ldmkit.Pipeline, photo: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = kl_pipe.save(tmp_path / "kl")
    latents = tmp_path / "z.safetensors"
    stats = run_json(capsys, "encode", folder, photo, "--out", latents)
    assert stats["shape"] == [1, 2, 4, 5]
    data = run_json(capsys, "decode", folder, latents, "--out", tmp_path / "back.png")
    assert data["size"] == [14, 19]
    expected = kl_pipe.decode(kl_pipe.encode(Image.open(photo)), (14, 19))[0]
    drawn = torch.from_numpy(np.asarray(Image.open(tmp_path / "back.png")).copy()).permute(2, 0, 1) / 255
    assert (expected - drawn).abs().max() <= 0.5 / 255 + 1e-5  # 8-bit rounding


def test_check_composes_without_weights(class_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    spec = tmp_path / "pipeline.json"
    spec.write_text((class_folder / "pipeline.json").read_text())  # and nothing else
    data = run_json(capsys, "check", spec)
    assert data["slots"]["context"] == {"kind": "tokens", "dim": 8, "filled_by": ["label"]}
    assert data["parameters"]["conditioners.label"] == 6 * 8
    code, text, _ = run(capsys, "check", tmp_path)
    assert code == 0 and "filled by label" in text


def test_check_of_a_huge_model_needs_no_memory(class_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    spec = json.loads((class_folder / "pipeline.json").read_text())
    spec["conditioners"]["label"]["config"]["n_classes"] = 2**24
    (tmp_path / "pipeline.json").write_text(json.dumps(spec))
    assert run_json(capsys, "check", tmp_path)["parameters"]["conditioners.label"] == 8 * 2**24


def test_import_copies_a_native_folder(class_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    data = run_json(capsys, "import", class_folder, "--out", tmp_path / "copy")
    assert set(data["used"].values()) == {"denoiser", "conditioners.label"} and not data["ignored"]
    assert ldmkit.load(tmp_path / "copy").spec.hash == ldmkit.load(class_folder).spec.hash


def test_plugins(capsys: Capture) -> None:
    rows = run_json(capsys, "plugins", "--kind", "sampler")
    assert {row["name"] for row in rows} == set(ldmkit.components("sampler"))
    assert {row["status"] for row in rows} == {"ok"}
    shown = run_json(capsys, "plugins", "show", "label")
    assert shown[0]["kind"] == "conditioner" and "n_classes" in shown[0]["config"]["properties"]
    assert "anyOf" in shown[0]["input"]
    code, text, _ = run(capsys, "plugins", "show", "sampler:ddim")
    assert code == 0 and "eta: number = 0.0" in text


@pytest.mark.parametrize("entry", ["classifier", "guidance:image", "unet", "controlnet", "checkpoints", "layout-boxes"])
def test_any_part_can_be_shown(entry: str, capsys: Capture) -> None:
    code, _, err = run(capsys, "plugins", "show", entry)
    assert code == 0, err


def test_usage_errors_are_code_2(capsys: Capture) -> None:
    for arguments in (["sampel"], ["encode"], ["sample", "x", "--steps", "many"], ["plugins", "--wat"]):
        code, _, err = run(capsys, *arguments)
        assert code == 2 and "Traceback" not in err and err


def test_help_is_code_0(capsys: Capture) -> None:
    for arguments in (["--help"], ["sample", "--help"], ["plugins", "show", "--help"]):
        code, out, _ = run(capsys, *arguments)
        assert code == 0 and "Usage" in out


def test_json_errors_are_json(tmp_path: Path, capsys: Capture) -> None:
    code, out, err = run(capsys, "sample", tmp_path / "nowhere", "--json")
    assert code == 3 and not err
    assert json.loads(out)["error"]["code"] == "source.not-found"


def test_truncation_is_reported_in_one_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*_: object, **__: object) -> None:
        warnings.warn("the prompt has 90 tokens, 75 fit", stacklevel=1)
        raise ldmkit.InputError("x", "y")

    monkeypatch.setattr("ldmkit.files.json.read_json", warn)
    code, _, err = run(capsys, "check", "spec.json")
    assert code == 2
    assert err.splitlines() == ["warning: the prompt has 90 tokens, 75 fit", "error [input.x] y"]


INTERRUPTING = """
import os, signal
import ldmkit

@ldmkit.hookimpl
def ldmkit_step(pipeline, step):
    if step.index == 2:
        os.kill(os.getpid(), signal.SIGINT)  # what Ctrl-C sends, at a moment that is the same on any machine
"""


def test_interrupt_leaves_130_and_nothing_written(class_folder: Path, tmp_path: Path) -> None:
    info = tmp_path / "site" / "interrupting-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: interrupting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ldmkit]\ninterrupting = interrupting\n")
    (tmp_path / "site" / "interrupting.py").write_text(INTERRUPTING)
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "ldmkit", "sample", str(class_folder), "--label", "1", "--steps", "900"]
    environment = {**os.environ, "PYTHONPATH": str(info.parent)}
    done = subprocess.run([*command, "--out", str(out / "never.png")], capture_output=True, text=True, env=environment)
    assert done.returncode == 130
    assert done.stderr.splitlines() == ["interrupted"] and done.stdout == ""
    assert list(out.iterdir()) == []


def test_a_reader_that_goes_away_is_no_error() -> None:
    # the reader has closed its end before anything is written, as `| head` does
    code = "import os, sys; from ldmkit.cli import main; r, w = os.pipe(); os.dup2(w, 1); os.close(r); os.close(w)"
    done = subprocess.run(
        [sys.executable, "-c", code + "; sys.exit(main(['plugins', '--kind', 'grid']))"], capture_output=True, text=True
    )
    assert done.stderr == "" and done.returncode == 0


def test_module_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "ldmkit", "plugins", "--kind", "nope"], capture_output=True, text=True)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1 and "plugin.unknown-kind" in done.stderr


def test_exit_codes_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    assert all(f"| {code} |" in page for code in (0, 2, 3, 4, 5, 130))
    assert all(
        f"ldmkit {name}" in page for name in ("sample", "plugins", "check", "import", "encode", "decode", "replay")
    )
