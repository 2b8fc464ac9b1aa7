"""A file of latents says whose they are, and is not read as another codec's."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny_diffusers as tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import ldmkit
from ldmkit.cli import main
from ldmkit.errors import DrawingWarning
from ldmkit.run.latent_files import about_codec, check_codec_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Latents of one model, and folders: itself, another scale, other weights, half precision."""
    base = tmp_path_factory.mktemp("whose")
    pipe = tiny.stable_diffusion()
    found = {"own": tiny.saved(pipe, base / "own")}
    pipe.vae.register_to_config(scaling_factor=0.13025)
    found["scale"] = tiny.saved(pipe, base / "scale")
    pipe.vae.register_to_config(scaling_factor=0.18215)
    torch.manual_seed(5)
    for parameter in pipe.vae.encoder.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    found["weights"] = tiny.saved(pipe, base / "weights")
    picture = base / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(picture)
    found["latents"] = base / "a.safetensors"
    assert main(["encode", str(found["own"]), str(picture), "--out", str(found["latents"])]) == 0
    return found


@pytest.mark.parametrize("command", ["decode", "sample"])
@pytest.mark.parametrize(("other", "words"), [("scale", "scale"), ("weights", "other weights")])
def test_of_another(
    made: dict[str, Path], command: str, other: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latents, out = str(made["latents"]), ["--out", str(tmp_path / "o.png"), "--json"]
    given = [latents] if command == "decode" else ["--start", latents, "--text", "a", "--steps", "2"]
    assert main([command, str(made[other]), *given, *out]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "input.other-latents" and words in error["what"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_of_its_own_in_any_dtype(made: dict[str, Path], dtype: str) -> None:
    codec = ldmkit.load_codec(made["own"])
    about = about_codec(ldmkit.load_codec(made["own"], dtype=dtype))
    latents = load_file(str(made["latents"]))["latents"]
    check_codec_of(about, codec, latents, "a.safetensors")
    with pytest.raises(ldmkit.InputError, match="other-latents"):
        check_codec_of(about, ldmkit.load_codec("miniworld"), latents, "a.safetensors")


def test_a_file_that_does_not_say(made: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(str(made["latents"])), str(bare))
    assert main(["decode", str(made["own"]), str(bare), "--out", str(tmp_path / "o.png")]) == 0
    assert "does not identify its codec" in capsys.readouterr().err
    codec = ldmkit.load_codec(made["own"])
    for about in ({}, {"codec": "no json"}, {"codec": "[1]"}):
        with pytest.warns(DrawingWarning, match="does not identify its codec"):
            check_codec_of(about, codec, load_file(str(bare))["latents"], "a")
    with warnings.catch_warnings():  # what is none of this codec's is refused, and not taken for its own before
        warnings.simplefilter("error")
        for shape in ((1, codec.channels + 1, 8, 8), (1, codec.channels, 8), (1, codec.channels, 0, 8)):
            with pytest.raises(ldmkit.InputError, match="latent-shape"):
                check_codec_of({}, codec, torch.zeros(shape), "a")
