"""Published adapters attached from their files: inputs, recipes, saving, replaying, the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_diffusers as tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import ldmkit
from ldmkit.cli import main
from ldmkit.cli.words import parse_adapter
from ldmkit.errors import CompositionError, InputError, SourceError, WeightsError
from ldmkit.replaying import replay, with_updates

HINT = np.random.default_rng(4).integers(0, 2, (32, 32, 3), dtype=np.uint8) * 255
CALL: dict[str, Any] = {"steps": 2, "seeds": [0], "guidance": 3.0}
TEXT = "the red house"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A text-to-image pipeline, and a ControlNet for it, as the oracle saves them."""
    root = tmp_path_factory.mktemp("published")
    both = tiny.controlnet_pipeline()
    options: Any = {**tiny.stable_diffusion().components, "unet": both.unet, "vae": both.vae}
    diffusers.StableDiffusionPipeline(**options, requires_safety_checker=False).save_pretrained(root / "base")
    both.controlnet.save_pretrained(root / "canny")
    return root / "base", root / "canny"


@pytest.fixture(scope="module")
def pipe(folders: tuple[Path, Path]) -> ldmkit.Pipeline:
    return ldmkit.load(folders[0])


def test_as_with_adapter(folders: tuple[Path, Path], pipe: ldmkit.Pipeline) -> None:
    from ldmkit_conditioners.image import Hint

    plain, keys = pipe({"text": TEXT}, **CALL).latents, pipe.denoiser.state_dict().keys()
    by_hand = pipe.with_adapter("canny", ldmkit.load_adapter(folders[1]).tuned(scale=0.5), {"hint": Hint({})})
    mine = pipe.with_adapter_file(folders[1], scale=0.5)
    assert list(mine.adapters) == ["canny"] and "hint" in mine.inputs and mine.origin == pipe.origin
    got = mine({"text": TEXT, "hint": HINT}, **CALL).latents
    assert torch.equal(got, by_hand({"text": TEXT, "canny": HINT}, **CALL).latents)
    assert torch.equal(mine.tuned("canny", scale=0.0)({"text": TEXT, "hint": HINT}, **CALL).latents, plain)
    del mine, by_hand
    assert torch.equal(pipe({"text": TEXT}, **CALL).latents, plain) and pipe.denoiser.state_dict().keys() == keys


def test_names_that_are_free(folders: tuple[Path, Path], pipe: ldmkit.Pipeline) -> None:
    two = pipe.with_adapter_file(folders[1]).with_adapter_file(folders[1])
    assert list(two.adapters) == ["canny", "canny-2"] and {"hint", "hint-2"} <= set(two.inputs)
    assert [one["name"] for one in two.updates] == ["canny", "canny-2"]
    with pytest.raises(InputError, match="name-taken"):
        pipe.with_adapter_file(folders[1], name="text")
    with pytest.raises(ldmkit.SpecError, match="name"):
        pipe.with_adapter_file(folders[1], name="a.b")
    odd = folders[1].with_name("1 - ümlaut")
    odd.symlink_to(folders[1])
    (name,) = pipe.with_adapter_file(odd).adapters
    assert name.isascii() and name[0].isalpha()


def test_saved_with_the_pipeline(folders: tuple[Path, Path], pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    """The saved folder is an adapter's file too: of the adapter in it."""
    mine = pipe.with_adapter_file(folders[1], end=0.5)
    want = mine({"text": TEXT, "hint": HINT}, **CALL).latents
    back = ldmkit.load(mine.save(tmp_path / "model"))
    assert torch.equal(back({"text": TEXT, "hint": HINT}, **CALL).latents, want)
    again = pipe.with_adapter_file(tmp_path / "model")
    assert torch.equal(again({"text": TEXT, "hint": HINT}, **CALL).latents, want)


def test_replay(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe holds the files' digests and the options as they are at last; replay refuses another file."""
    base, canny = folders
    Image.fromarray(HINT).save(tmp_path / "edges.png")
    own = tmp_path / "canny"
    own.mkdir()
    for file in canny.iterdir():
        (own / file.name).write_bytes(file.read_bytes())
    out = tmp_path / "p.png"
    hints = ["--hint", str(tmp_path / "edges.png"), "--hint-2", str(tmp_path / "edges.png")]
    adapters = ["--adapter", f"{own}:0.7", "--adapter", f"{own}:end=0.5"]
    words = ["sample", str(base), "--text", TEXT, "--steps", "2", *adapters, *hints, "-o", str(out)]
    assert main(words) == 0
    recipe = ldmkit.read_recipe(out)
    assert [one["options"] for one in recipe["updates"]] == [{"scale": 0.7}, {"end": 0.5}]
    want = ldmkit.load(base).with_adapter_file(own, scale=0.7).with_adapter_file(own, end=0.5)
    drawn = want({"text": TEXT, "hint": HINT, "hint-2": HINT}, steps=2, seeds=[0])
    pipe = ldmkit.load(base)
    assert torch.equal(replay(with_updates(pipe, recipe), recipe, trust=True).images, drawn.images)
    softer = want.tuned("canny", scale=0.1)
    kept = softer({"text": TEXT, "hint": HINT, "hint-2": HINT}, steps=2, seeds=[0]).recipes[0]
    assert kept["updates"][0]["options"] == {"scale": 0.1}
    capsys.readouterr()
    assert main(["replay", str(out), "--model", str(base), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] == 0
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "extra": 1} | {"_diffusers_version": "0.1"}))
    with pytest.raises(SourceError):
        with_updates(pipe, recipe)
    (own / "config.json").write_text(json.dumps({**config, "_diffusers_version": "0.1"}))
    assert main(["replay", str(out), "--model", str(base)]) != 0
    assert "source.other-update" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (moved := tmp_path / "other" / "p.png").write_bytes(out.read_bytes())
    assert main(["replay", str(moved), "--model", str(base)]) != 0
    assert "the file of an 'adapter'" in capsys.readouterr().err


def test_inputs_are_listed(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(folders[0]), "--adapter", str(folders[1]), "--inputs"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"text", "hint"}
    assert main(["sample", str(folders[0]), "--adapter", str(folders[1]), "--hnt", "x.png"]) != 0
    assert "did you mean 'hint'" in capsys.readouterr().err


def test_words(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.touch()
    for text, options in {
        "": {},
        ":0.5": {"scale": 0.5},
        ":scale=0.5,encoder=/a,b": {"scale": 0.5, "encoder": "/a,b"},
        ":0.5,encoder=hf:x/y,end=1": {"scale": 0.5, "encoder": "hf:x/y", "end": 1},
    }.items():
        assert parse_adapter(f"{file}{text}") == (str(file), options)
    for text, error in {":much": "scale-range", ":a=1,a=2": "strategy-config", "b": "not-found"}.items():
        with pytest.raises((InputError, SourceError), match=error):
            parse_adapter(f"{file}{text}")


def test_bad_files(folders: tuple[Path, Path], pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    base, canny = folders
    for source, error, words in [
        (3, InputError, "path-type"),
        (tmp_path / "absent", SourceError, "not-found"),
        (tmp_path, SourceError, "unrecognised"),
        (base, SourceError, "no-adapter"),
    ]:
        with pytest.raises(error, match=words):
            pipe.with_adapter_file(source)  # type: ignore[arg-type]
    with pytest.raises(ldmkit.SpecError, match=r"sclae.*scale"):
        pipe.with_adapter_file(canny, sclae=0.5)
    lora = tmp_path / "lora.safetensors"
    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    save_file({f"{key}.lora_down.weight": torch.ones(2, 64), f"{key}.lora_up.weight": torch.ones(64, 2)}, lora)
    with pytest.raises(SourceError, match="with_lora"):
        pipe.with_adapter_file(lora)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((canny / "config.json").read_bytes())
    tensors = load_file(canny / "diffusion_pytorch_model.safetensors")
    tensors["controlnet_mid_block.bias"] = torch.full_like(tensors["controlnet_mid_block.bias"], float("nan"))
    save_file(tensors, broken / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match=r"not-finite.*zero_mid\.bias"):
        pipe.with_adapter_file(broken)
    xl = ldmkit.load(tiny.saved(tiny.stable_diffusion_xl(), tmp_path / "xl"))
    with pytest.raises(CompositionError, match="other-network"):
        xl.with_adapter_file(canny)
    assert not xl.adapters and not any(port.taps for port in xl.denoiser.ports.values())
