"""A file of latents stands for the picture that was encoded: for its size, its masks and its place in a batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_parts
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ldmkit.cli import main
from ldmkit.run.recipe import read_recipe


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of factor 4; a picture of 14x19 that the codec pads to 16x20, a mask, and the picture's latents."""
    base = tmp_path_factory.mktemp("files")
    tiny_parts.class_pipeline("kl").save(base / "model")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (14, 19, 3), dtype=np.uint8)).save(base / "odd.png")
    Image.fromarray(rng.integers(0, 2, (14, 19), dtype=np.uint8) * 255).save(base / "mask.png")
    assert main(["encode", str(base / "model"), str(base / "odd.png"), "--out", str(base / "odd.safetensors")]) == 0
    return base


def drawn(made: Path, out: Path, *words: str) -> int:
    return main(["sample", str(made / "model"), "--label", "1", "--strength", "0.5", "--out", str(out), *words])


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_its_size(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, start in (("a.png", "odd.png"), ("b.png", "odd.safetensors")):
        assert drawn(made, tmp_path / name, "--start", str(made / start)) == 0
    assert pixels(tmp_path / "b.png").shape == (14, 19, 3) and read_recipe(tmp_path / "b.png")["size"] == [14, 19]
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))
    assert main(["replay", str(tmp_path / "b.png"), "--model", str(made / "model")]) == 0
    assert "largest difference: 0" in capsys.readouterr().out


def test_its_mask(made: Path, tmp_path: Path) -> None:
    words = ["--start", str(made / "odd.safetensors"), "--mask", str(made / "mask.png")]
    assert drawn(made, tmp_path / "m.png", *words) == 0
    assert main(["decode", str(made / "model"), str(made / "odd.safetensors"), "--out", str(tmp_path / "d.png")]) == 0
    kept = pixels(made / "mask.png") == 0
    assert np.array_equal(pixels(tmp_path / "m.png")[kept], pixels(tmp_path / "d.png")[kept])


def test_beside_the_picture_and_in_a_folder(made: Path, tmp_path: Path) -> None:
    both = [word for name in ("odd.png", "odd.safetensors") for word in ("--start", str(made / name))]
    assert drawn(made, tmp_path / "b.png", *both, "--seed", "3") == 0
    assert [pixels(tmp_path / f"b-{i}.png").shape for i in range(2)] == [(14, 19, 3)] * 2
    assert drawn(made, tmp_path / "folder", "--start", str(made / "odd.safetensors"), "-n", "2") == 0
    assert [pixels(path).shape for path in sorted((tmp_path / "folder").iterdir())] == [(14, 19, 3)] * 2


@pytest.mark.parametrize("said", [
    {"height": "14"}, {"height": "10", "width": "19"}, {"height": "0", "width": "19"}, {"height": "-1", "width": "19"},
    {"height": "14.0", "width": "19"}, {"height": "15", "width": "21"},
])  # fmt: skip
@pytest.mark.parametrize("command", ["decode", "sample"])
def test_a_file_that_contradicts_itself(
    made: Path, tmp_path: Path, said: dict[str, str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with safe_open(str(made / "odd.safetensors"), "pt") as file:
        codec = file.metadata()["codec"]
    save_file(load_file(str(made / "odd.safetensors")), str(tmp_path / "x.safetensors"), {"codec": codec, **said})
    given = [str(tmp_path / "x.safetensors")]
    given = given if command == "decode" else ["--start", *given, "--label", "1"]
    assert main([command, str(made / "model"), *given, "--out", str(tmp_path / "x.png"), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "source.no-latents"
