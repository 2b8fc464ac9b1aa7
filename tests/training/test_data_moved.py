"""What lies on the picture moves with it: hints, masks and label maps in files of their own, and boxes by any name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from data_sources import section as plain_section
from ldmkit_conditioners.image import ImagePlane
from ldmkit_conditioners.semantic import Semantic
from ldmkit_training.before.moving import spatial_size
from ldmkit_training.before.plan import make_plan
from ldmkit_training.before.preflight import checked_data
from ldmkit_training.before.recipe import Recipe, build_stage
from ldmkit_training.data.batches import Batches, validation_batches
from ldmkit_training.data.geometry import Window, fit_lying, fit_picture
from ldmkit_training.data.identity import differing, identity
from ldmkit_training.data.places import Place
from ldmkit_training.data.section import open_data
from ldmkit_training.data.sources.lying import SpatialInput
from ldmkit_training.loop.engine import Engine
from PIL import Image

from ldmkit.contracts.data import Dataset
from ldmkit.errors import InputError, SpecError
from ldmkit.files.pictures import read_picture

COUNT, HEIGHT, WIDTH = 6, 20, 36


def colours(seed: int, scale: int = 1) -> np.ndarray:
    """Blocks of 2 x 2 random colours, each pixel `scale` times as large along a side."""
    blocks = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 2, WIDTH // 2, 3), dtype=np.uint8)
    return blocks.repeat(2 * scale, axis=0).repeat(2 * scale, axis=1)


def recipe(
    tmp_path: Path, conditioner: dict[str, Any], rows: list[dict[str, Any]], *overrides: str, planes: int = 3
) -> Recipe:
    """`rows` are the inputs of the pictures; the conditioner reads the input `given`."""
    folder = tmp_path / "d"
    folder.mkdir(exist_ok=True)
    for number in range(len(rows)):
        Image.fromarray(colours(number)).save(folder / f"{number}.png")
    lines = [json.dumps({"file_name": f"{number}.png", **row}) for number, row in enumerate(rows)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    data = tiny.denoiser_data(tmp_path / "run", "data.validation=null", "validation=null")
    data["data"]["train"] = {"type": "folder", "config": {"folder": str(folder)}}
    data["model"]["conditioners"] = {"given": conditioner}
    data["model"]["denoiser"]["config"] |= {"attention": ["none", "none"], "context_dim": None}
    data["model"]["denoiser"]["config"]["in_channels"] = 3 + planes
    data["objective"] = {}
    return tiny.parse_recipe(tiny.overridden(data, overrides))


def hints(tmp_path: Path, scale: int = 1) -> list[dict[str, Any]]:
    """Each picture once more, in a file of its own."""
    (tmp_path / "h").mkdir(exist_ok=True)
    for number in range(COUNT):
        Image.fromarray(colours(number, scale)).save(tmp_path / f"h/{number}.png")
    return [{"given": str(tmp_path / f"h/{number}.png")} for number in range(COUNT)]


def read(made: Recipe) -> tuple[Dataset, list[Any]]:
    """The source as training has it, and the batches of three epochs."""
    stage = build_stage(made, Path())
    train, _ = checked_data(made, stage, *open_data(made.data, Path()))
    batches = Batches(train, made.data, seed=1, names=stage.inputs)
    return train, [batches.at(step)[0] for step in range(3 * COUNT // made.data.batch + 1)]


AUGMENTATIONS = [
    [f"data.fit={fit}", f"data.mirror={mirror}", f"data.size={size}"]
    for fit in ("resize", "crop", "random-crop")
    for mirror in (0.0, 0.5, 1.0)
    for size in ("[16, 16]", "[32, 16]")
]


@pytest.mark.parametrize("changes", AUGMENTATIONS, ids=" ".join)
def test_a_hint_equal_to_its_picture_stays_equal(tmp_path: Path, changes: list[str]) -> None:
    made = recipe(tmp_path, {"type": "image"}, hints(tmp_path), *changes)
    train, batches = read(made)
    met = [(image, row["given"]) for batch in batches for image, row in zip(batch.images, batch.inputs, strict=True)]
    for image, hint in met:
        assert torch.equal(read_picture(hint), image)
    assert len({image.numpy().tobytes() for image, _ in met}) > COUNT or not made.data.random or made.data.mirror == 1.0
    held = validation_batches(train, made.data, None, names=frozenset({"given"}))
    for image, row in zip(held[0].images, held[0].inputs, strict=True):  # type: ignore[arg-type]
        assert torch.equal(read_picture(row["given"]), image)


def test_a_hint_has_a_resolution_of_its_own() -> None:
    """Against the same window cut by hand, at twice and at half the picture's resolution."""
    seen, picture = Window(4, 2, 24, 18, True), (HEIGHT, WIDTH)
    for scale in (1, 2):
        big = colours(0, scale)
        cut = Image.fromarray(big[2 * scale : 18 * scale, 4 * scale : 24 * scale]).resize((10, 8), Image.BICUBIC)
        found = fit_lying(big, SpatialInput("picture", (8, 10)), picture, seen, "here")
        assert np.array_equal(found, np.asarray(cut)[:, ::-1])
    half = colours(0)[::2, ::2]
    found = fit_lying(half, SpatialInput("picture", (8, 10)), picture, seen, "here")
    assert np.array_equal(found, half[1:9, 2:12][:, ::-1])
    labels = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    twice = labels.repeat(2, axis=0).repeat(2, axis=1)
    for size in ((8, 10), (5, 7), (32, 40)):
        one, other = (fit_lying(a, SpatialInput("labels", size), picture, seen, "here") for a in (labels, twice))
        assert np.array_equal(one, other)


def test_windows_between_a_hints_pixels_are_interpolated() -> None:
    """A ramp along x: what is seen is its own place, to the rounding of eight bits and the edge of the filter."""
    ramp = np.tile(np.arange(0, 180, 20, dtype=np.uint8)[None, :, None], (5, 1, 3))  # a quarter of 20 x 36
    found = fit_lying(ramp, SpatialInput("picture", (3, 5)), (HEIGHT, WIDTH), Window(6, 4, 26, 16), "here")[1, :, 0]
    # pixel i of 5 has its centre at x = 6 + 4 i + 2 of 36, at (x / 4 - 0.5) * 20 of the ramp
    wanted = [((6 + 4 * i + 2) / 4 - 0.5) * 20 for i in range(5)]
    np.testing.assert_allclose(found[1:-1], wanted[1:-1], atol=1)


def test_floats_move_like_eight_bits() -> None:
    levels, seen = colours(3), Window(2, 4, 30, 16, True)
    whole = fit_picture(levels, seen, (9, 12)).astype(np.float64)
    found = fit_lying(levels.astype(np.float32) / 255, SpatialInput("picture", (9, 12)), (HEIGHT, WIDTH), seen, "here")
    # PIL keeps eight bits between its two passes: up to a level each
    np.testing.assert_allclose(found * 255, whole, atol=2)


def test_of_a_window_only_the_pictures_proportions_can_be_cropped() -> None:
    lies, seen = SpatialInput("mask", (8, 8)), Window(0, 0, 16, 16)
    with pytest.raises(InputError, match="cannot be cropped with it") as caught:
        fit_lying(np.zeros((HEIGHT, HEIGHT), np.uint8), lies, (HEIGHT, WIDTH), seen, "7.png: given")
    assert caught.value.code == "input.bad-sample" and caught.value.where == "7.png: given"
    fit_lying(np.zeros((HEIGHT // 2 + 1, WIDTH // 2), np.uint8), lies, (HEIGHT, WIDTH), seen, "rounded")
    with pytest.raises(InputError) as caught:
        fit_lying(np.zeros((9, 8), np.uint8), lies, (8, 8), Window(0, 0, 8, 8), "here", exact=True)
    assert caught.value.code == "input.picture-size"


def test_the_size_beside_a_picture_is_what_the_conditioner_asks_for() -> None:
    assert spatial_size(ImagePlane(), {Place("low"): "picture"}, (64, 96), 4) == (16, 24)
    semantic = Semantic({"n_classes": 3, "stages": 1})
    assert spatial_size(semantic, {Place("map"): "labels"}, (64, 96), 8) == (16, 24)


def test_a_map_in_a_file_and_a_mask_move_alike(tmp_path: Path) -> None:
    """Bright pixels are class 1: after each augmentation the map says what a threshold of the picture would, to the
    row and column that a resize can move an edge by."""
    rows = hints(tmp_path)
    for number in range(COUNT):
        draws = np.random.default_rng(number)
        bright = np.zeros((HEIGHT, WIDTH), np.uint8)
        y, x = draws.integers(0, 10), draws.integers(0, 26)
        bright[y : y + 10, x : x + 10] = 1
        Image.fromarray(bright).save(tmp_path / f"h/{number}.png")
    made = recipe(
        tmp_path, {"type": "semantic", "config": {"n_classes": 2, "stages": 0, "dim": 3}}, rows,
        "data.fit=random-crop", "data.mirror=0.5",
    )  # fmt: skip
    for number in range(COUNT):
        with Image.open(tmp_path / f"h/{number}.png") as labels:
            Image.fromarray(np.asarray(labels)[..., None].repeat(3, 2) * 255).save(tmp_path / f"d/{number}.png")
    batches = read(made)[1]
    assert sum(len(batch.images) for batch in batches) >= COUNT
    for batch in batches:
        for image, row in zip(batch.images, batch.inputs, strict=True):
            found, wanted = row["given"] == 1, image[0].numpy() > 0
            edge = sum(int(found.any(axis).sum()) for axis in (0, 1))
            assert (found ^ wanted).sum() <= edge


def masked(tmp_path: Path) -> list[dict[str, Any]]:
    rows = hints(tmp_path)
    for number in range(COUNT):
        Image.fromarray(colours(number)[..., 0]).save(tmp_path / f"h/{number}-mask.png")
    return [{"given": {"image": r["given"], "mask": str(tmp_path / f"h/{n}-mask.png")}} for n, r in enumerate(rows)]


MASKED = {"type": "masked-image", "config": {"latent_channels": 3}}


def test_the_fields_of_an_input_move_and_are_cached(tmp_path: Path) -> None:
    """A picture with a hole: with latents of 50 views on disk each row's picture is still the latent's own (the codec
    keeps pixels as they are), and the mask is one of its channels' pixels."""
    changes = ["data.fit=random-crop", "data.mirror=0.5", f"data.cache={{folder: {tmp_path / 'cache'}, views: 50}}"]
    made = recipe(tmp_path, MASKED, masked(tmp_path), *changes, planes=4)
    assert Engine(made, tmp_path).run().step == made.steps
    engine = Engine(made.model_copy(update={"out": str(tmp_path / "other")}), tmp_path)
    seen = set()
    for _, (batch,) in zip(range(4), (parts for _, parts in engine._batches()), strict=False):
        for latent, row in zip(batch.latents, batch.inputs, strict=True):  # type: ignore[arg-type]
            assert torch.equal(read_picture(row["given"]["image"]), latent)
            assert row["given"]["mask"].shape == (16, 16) and row["given"]["mask"].dtype == np.uint8
            assert np.isin(row["given"]["mask"], colours(int(batch.ids[0].partition(".")[0]))).any()
            seen.add(latent.numpy().tobytes())
    engine._lock.close()  # type: ignore[union-attr]
    assert len(seen) > COUNT


@pytest.mark.parametrize("change", ["data.mirror=0.5", "data.fit=random-crop", "data.fit=crop"])
def test_numbers_of_a_plane_are_refused_unless_they_are_said_not_to_lie_there(tmp_path: Path, change: str) -> None:
    given = {"type": "given", "config": {"kind": "plane", "dim": 3}}
    rows = [{"given": np.zeros((3, 16, 16)).tolist()}] * COUNT
    for begin in (Engine, make_plan):
        with pytest.raises(SpecError) as caught:
            begin(recipe(tmp_path, given, rows, change), tmp_path)
        assert caught.value.code == "spec.not-moved" and "'given'" in caught.value.what
        assert "moves: {given: false}" in str(caught.value.fits)
    assert not (tmp_path / "run").exists()
    assert Engine(recipe(tmp_path, given, rows, change, "steps=1", "data.moves={given: false}"), tmp_path).run().step
    with pytest.raises(SpecError, match="did you mean 'given'"):
        make_plan(recipe(tmp_path, given, rows, change, "data.moves={givn: false}"), tmp_path)


def test_boxes_move_by_whatever_name_they_come(tmp_path: Path) -> None:
    """A folder's `boxes` are `layout` by default; `given` is one because a conditioner of layouts reads it."""
    rows = [{"given": [{"label": 1, "box": [0.0, 0.25, 0.25, 0.75]}]}] * COUNT
    layout = {"type": "layout-plane", "config": {"n_classes": 3, "dim": 3}}
    made = recipe(tmp_path, layout, rows, "data.mirror=1.0")
    for batch in read(made)[1]:
        assert [row["given"][0]["box"] for row in batch.inputs] == [[0.75, 0.25, 1.0, 0.75]] * len(batch.ids)
    still = recipe(tmp_path, layout, rows, "data.mirror=1.0", "data.moves={given: false}")
    assert read(still)[1][0].inputs[0]["given"][0]["box"] == [0.0, 0.25, 0.25, 0.75]


def test_boxes_that_cannot_be_cropped_are_found_before_the_first_step(tmp_path: Path) -> None:
    good, bad = ({"label": 1, "box": [0.1, 0.2, 0.3, 0.4], **more} for more in ({}, {"format": "xywh"}))
    layout = {"type": "layout-plane", "config": {"n_classes": 3, "dim": 3}}
    made = recipe(tmp_path, layout, [{"given": [good]}] * 5 + [{"given": [bad]}], "data.mirror=0.5")
    with pytest.raises(InputError, match=r"5\.png") as caught:
        Engine(made, tmp_path)
    assert caught.value.code == "input.bad-rows"


def test_what_a_hint_shows_is_part_of_what_the_data_are(tmp_path: Path) -> None:
    """Moved files are the same data; other pixels in them are not."""
    made = recipe(tmp_path, {"type": "image"}, hints(tmp_path))
    before = identity(read(made)[0])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = recipe(elsewhere, {"type": "image"}, hints(elsewhere))
    assert differing(before, identity(read(moved)[0])) == [] and before["exact"]
    Image.fromarray(colours(9)).save(elsewhere / "h/3.png")
    assert differing(before, identity(read(moved)[0])) == ["pictures or maps, or how they are read"]


def test_a_hint_that_is_not_there_is_found_before_the_first_step(tmp_path: Path) -> None:
    rows = hints(tmp_path)
    (tmp_path / "h/4.png").unlink()
    (tmp_path / "h/5.png").unlink()
    (tmp_path / "h/5.png").mkdir()
    with pytest.raises(InputError, match=r"2 of 6 samples.*'4\.png', '5\.png'.*4\.png: given .*no such file") as caught:
        Engine(recipe(tmp_path, {"type": "image"}, rows, "data.mirror=0.5"), tmp_path)
    assert caught.value.code == "input.bad-rows" and not (tmp_path / "run").exists()
    skipping = recipe(tmp_path, {"type": "image"}, rows, "data.damaged=skip")
    assert {name for batch in read(skipping)[1] for name in batch.ids} == {f"{number}.png" for number in range(4)}


def test_a_hint_that_cannot_be_read_is_a_damaged_file(tmp_path: Path) -> None:
    rows = hints(tmp_path)
    (tmp_path / "h/2.png").write_bytes(b"no picture")
    made = recipe(tmp_path, {"type": "image"}, rows, "data.mirror=0.5")
    with pytest.raises(InputError, match=r"2\.png.*not a picture file"):
        read(made)
    skipping = recipe(tmp_path, {"type": "image"}, rows, "data.mirror=0.5", "data.damaged=skip")
    assert "2.png" not in {name for batch in read(skipping)[1] for name in batch.ids}
    assert plain_section().moves == {}
