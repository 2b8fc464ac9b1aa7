"""The recipes in examples/: what they name exists, and on files of the public layouts the command line trains them."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ldmkit_checkpoints.tiny.keys import tiny_sequential_keys
from ldmkit_codecs.tiny import TinyCodec
from ldmkit_training.before.recipe import Recipe, read_training_recipe
from PIL import Image
from safetensors.torch import save_file

import ldmkit
from ldmkit.cli import main
from ldmkit.models.spec import PartSpec

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = sorted(EXAMPLES.rglob("*.yaml"))
BUNDLED = "miniworld"
"""A model that is installed with ldmkit, whose codec a recipe may take."""
FEW = ("data.batch=2", "validation.count=2", "tracking.to=[]")
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: "/".join(path.parts[-2:]))
def test_recipes_name_what_exists(path: Path) -> None:
    recipe = read_training_recipe(path)
    named = [("data", spec) for spec in (recipe.data.train, recipe.data.validation) if spec is not None]
    if recipe.stage == "denoiser":
        parts = [recipe.model.denoiser, recipe.model.process, *recipe.model.conditioners.values()]
        kinds = ["denoiser", "process", *("conditioner" for _ in recipe.model.conditioners)]
        named += [(kind, part) for kind, part in zip(kinds, parts, strict=True) if part is not None]
    if recipe.stage == "proposer":
        named.append(("conditioner", PartSpec(type=str(recipe.model.type), config=recipe.model.config)))
    if recipe.stage == "denoiser" and recipe.model.start is None:
        assert recipe.model.defaults is not None and recipe.model.codec is not None
        if "low" not in recipe.model.conditioners:  # the second of a cascade draws at the size of what it enlarges
            assert recipe.model.defaults.size == recipe.data.size
        if recipe.model.codec.from_ is None:
            assert recipe.model.codec.type == "identity", "it has no weights that another recipe would train"
        elif recipe.model.codec.from_ != BUNDLED:
            others = [other for other in RECIPES if other.parent == path.parent and _makes(other, recipe)]
            (first,) = map(read_training_recipe, others)
            assert first.data.size == recipe.data.size
    if recipe.stage in ("denoiser", "proposer") and recipe.model.start is not None:
        others = [read_training_recipe(other).out for other in RECIPES if other.parent == path.parent]
        assert recipe.model.start in [f"../../{out}/model" for out in others]
    for kind, spec in named:
        part: Any = ldmkit.get(kind, spec.type)
        config = getattr(part, "Config", part)
        config.of(spec.config, f"{path}: {spec.type}")


def _makes(path: Path, recipe: Recipe) -> bool:
    """Whether a recipe's run is where another takes its codec from."""
    assert recipe.model.codec is not None
    first = read_training_recipe(path)
    return first.stage == "codec" and first.out == recipe.model.codec.from_


@pytest.mark.parametrize("name", ["blood_cells", "camvid", "emoji"])
def test_on_files_of_the_public_layout(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps at half the size, so that the test is quick; everything else is as the recipe says."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "examples" / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("data"))
    tiny_codec(tmp_path / "examples" / "taef2")
    prepared, inputs = LAYOUTS[name](tmp_path / "public", folder / "data")
    if prepared is not None:
        monkeypatch.setattr("sys.argv", ["prepare.py", str(prepared)])
        runpy.run_path(str(folder / "prepare.py"), run_name="__main__")
    size = [32, 48] if name == "camvid" else [32, 32]
    sized = [f"data.size={size}", "model.denoiser.config.widths=[16,32]", "model.denoiser.config.norm_groups=8"]
    sized += [f"model.denoiser.config.attention=[none,{'self' if name == 'camvid' else 'cross'}]"]
    assert run(folder / "codec.yaml", *FEW, f"data.size={size}", "previews=null") == 0
    few = (
        *FEW,
        *sized,
        "steps=2",
        f"model.defaults.size={size}",
        "previews.count=1",
        "previews.steps=1",
        "probe.count=2",
    )
    assert run(folder / "recipe.yaml", *few) == 0
    out = tmp_path / "runs" / name.replace("_", "-")
    assert len((out / "log.jsonl").read_text().splitlines()) >= 1 and (out / "probe.jsonl").is_file()
    pipe = ldmkit.load(out / "model")
    assert isinstance(pipe.codec.config.scale, tuple), "the latents were measured"
    drawn = pipe([inputs, {}], seeds=[0, 0], steps=1)
    assert drawn.images.shape == (2, 3, *size)
    assert not torch.equal(*drawn.latents), "the pictures may both be black after so few steps"


def run(recipe: Path, *overrides: str) -> int:
    """`ldmkit train` in this process."""
    options = [word for override in overrides for word in ("--set", override)]
    return main(["train", str(recipe), *options])


def tiny_codec(folder: Path) -> None:
    """Both files of a tiny autoencoder with 32 latent channels, with random weights."""
    torch.manual_seed(0)
    codec = TinyCodec({"latent_channels": 32, "encoder_pool": True, "decoder_pool": True})
    folder.mkdir(parents=True)
    state = {entry.keys[0]: codec.state_dict()[name] for name, entry in tiny_sequential_keys(codec.config).items()}
    for half in ("encoder", "decoder"):
        tensors = {key.removeprefix(f"{half}."): t.contiguous() for key, t in state.items() if key.startswith(half)}
        save_file(tensors, folder / f"{half}.safetensors")


def photograph(path: Path, size: tuple[int, int], mode: str = "RGB") -> None:
    """Noise of a size (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": (3,), "RGBA": (4,)}[mode]
    Image.fromarray(RANDOM.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8), mode).save(path)


def blood_cells(public: Path, _data: Path) -> tuple[Path, dict[str, Any]]:
    """Pascal VOC's folders, as BCCD has them; one box of a picture has no area."""
    lists = public / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (public / "Annotations").mkdir()
    for part, numbers in (("train", (0, 1, 2)), ("val", (3, 4))):
        (lists / f"{part}.txt").write_text("".join(f"BloodImage_0000{i}\n" for i in numbers))
        for i in numbers:
            photograph(public / "JPEGImages" / f"BloodImage_0000{i}.jpg", (64, 48))
            found = [("RBC", 4, 5, 20, 25), ("WBC", 30, 8, 60, 40), ("Platelets", 10, 30, 10, 34)]
            entries = "".join(
                f"<object><name>{label}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
                f"<ymax>{y1}</ymax></bndbox></object>"
                for label, x0, y0, x1, y1 in found
            )
            (public / "Annotations" / f"BloodImage_0000{i}.xml").write_text(f"<annotation>{entries}</annotation>")
    return public, {"layout": [{"label": "WBC", "box": [0.1, 0.2, 0.6, 0.7]}]}


def camvid(_public: Path, data: Path) -> tuple[None, dict[str, Any]]:
    """Pictures and grey maps of labels 0 to 11, which are read where they lie."""
    for part, count in (("train", 3), ("val", 2)):
        for i in range(count):
            photograph(data / "CamVid" / part / f"0001TP_{i}.png", (96, 72))
            labels = np.repeat(np.arange(12, dtype=np.uint8), 6)[:, None].repeat(96, 1)
            target = data / "CamVid" / f"{part}annot" / f"0001TP_{i}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels, "L").save(target)
    return None, {"semantic": np.full((32, 48), 3, dtype=np.uint8)}


def emoji(public: Path, _data: Path) -> tuple[Path, dict[str, Any]]:
    """Noto's file names; families and flags, of several code points, are left alone."""
    codes = [0x1F534, 0x1F535, 0x1F9E1, 0x1F49B, 0x1F49A, 0x1F499, 0x2B1B, 0x2B1C, 0x1F7E5, 0x1F7E6, 0x1F7E7]
    for code in codes:
        photograph(public / f"emoji_u{code:04x}.png", (17, 16), "RGBA")
    photograph(public / "emoji_u1f468_200d_1f9b0.png", (17, 16), "RGBA")
    return public, {"text": "blue heart"}


LAYOUTS: dict[str, Callable[[Path, Path], tuple[Path | None, dict[str, Any]]]] = {
    "blood_cells": blood_cells,
    "camvid": camvid,
    "emoji": emoji,
}


def test_held_out_captions_have_words_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emoji(tmp_path / "public", tmp_path)
    monkeypatch.setattr("sys.argv", ["prepare.py", str(tmp_path / "public"), "--out", str(tmp_path / "data")])
    made = runpy.run_path(str(EXAMPLES / "emoji" / "prepare.py"), run_name="__main__")
    parts = {}
    for part in ("train", "held-out"):
        lines = (tmp_path / "data" / part / "metadata.jsonl").read_text().splitlines()
        parts[part] = [json.loads(line) for line in lines]
        assert all(Image.open(tmp_path / "data" / part / line["file_name"]).size == (96, 96) for line in parts[part])
    words = {word for line in parts["train"] for word in made["words"](line["text"])}
    assert parts["held-out"] and len(parts["train"]) + len(parts["held-out"]) == 11
    assert all(word in words for line in parts["held-out"] for word in made["words"](line["text"]))
    tokens = (tmp_path / "data" / "vocabulary" / "vocab.txt").read_text().split()
    assert words <= set(tokens) and len(set(tokens)) == len(tokens)


def test_boxes_of_pascal_voc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blood_cells(tmp_path / "public", tmp_path)
    monkeypatch.setattr("sys.argv", ["prepare.py", str(tmp_path / "public"), "--out", str(tmp_path / "data")])
    runpy.run_path(str(EXAMPLES / "blood_cells" / "prepare.py"), run_name="__main__")
    found = json.loads((tmp_path / "data" / "train.json").read_text())
    assert len(found["images"]) == 3 and len(found["annotations"]) == 9
    assert found["images"][0] == {"id": 1, "file_name": "BloodImage_00000.jpg", "width": 64, "height": 48}
    names = {category["id"]: category["name"] for category in found["categories"]}
    first = [(names[entry["category_id"]], entry["bbox"]) for entry in found["annotations"] if entry["image_id"] == 1]
    assert first == [("RBC", [4, 5, 16, 20]), ("WBC", [30, 8, 30, 32]), ("Platelets", [10, 30, 0, 4])]
