"""Maps of values in training: they are cropped, mirrored and resized with their pictures, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from data_sources import section
from ldmkit_training.before.plan import make_plan
from ldmkit_training.data.geometry import Window, fit_lying
from ldmkit_training.data.sources.lying import SpatialInput
from ldmkit_training.loop.engine import Engine
from PIL import Image
from test_data_moved import COUNT, HEIGHT, WIDTH, read

from ldmkit import SpecError, ValueMap
from ldmkit.errors import InputError

ROWS, COLUMNS = np.mgrid[0.5:HEIGHT, 0.5:WIDTH]
"""Of the middle of each pixel."""
UNIT = ValueMap()
FLOW = ValueMap(channels=2, low=-1, high=1, mirror=(-1, 1))


def recipe(tmp_path: Path, conditioner: dict[str, Any], arrays: list[np.ndarray], *overrides: str) -> tiny.Recipe:
    """Pictures of ramps along x and y (red and green), and beside each the array of the same number."""
    for folder in ("pictures", "depth"):
        (tmp_path / folder).mkdir(exist_ok=True)
    ramp = np.stack([COLUMNS / WIDTH, ROWS / HEIGHT, 0 * ROWS], axis=2)
    for number, array in enumerate(arrays):
        Image.fromarray(np.rint(ramp * 255).astype(np.uint8)).save(tmp_path / f"pictures/{number}.png")
        np.save(tmp_path / f"depth/{number}.npy", array)
    data = tiny.denoiser_data(tmp_path / "run", "data.validation=null", "validation=null")
    config = {"pictures": str(tmp_path / "pictures"), "files": str(tmp_path / "depth"), "name": "given"}
    data["data"]["train"] = {"type": "beside", "config": config}
    data["model"]["conditioners"] = {"given": conditioner}
    channels = conditioner["config"].get("channels", 1)
    data["model"]["denoiser"]["config"] |= {"attention": ["none", "none"], "context_dim": None}
    data["model"]["denoiser"]["config"]["in_channels"] = 3 + channels + 1
    data["objective"] = {}
    return tiny.parse_recipe(tiny.overridden(data, overrides))


VIEWS = [
    [f"data.fit={fit}", f"data.mirror={mirror}", f"data.size={size}"]
    for fit in ("resize", "crop", "random-crop")
    for mirror in (0.0, 0.5)
    for size in ("[16, 16]", "[32, 16]")
]


@pytest.mark.parametrize("changes", VIEWS, ids=" ".join)
def test_a_map_says_of_each_pixel_what_its_picture_shows(tmp_path: Path, changes: list[str]) -> None:
    """The picture's red is a map along x, its green one along y: both stay so in whatever window is seen."""
    arrays = [np.stack([COLUMNS / WIDTH, ROWS / HEIGHT], axis=2)] * COUNT
    made = recipe(
        tmp_path, {"type": "value-map", "config": {"channels": 2, "mirror": [1, 1]}}, arrays, *changes
    )  # fmt: skip
    for batch in read(made)[1]:
        for image, row in zip(batch.images, batch.inputs, strict=True):
            assert row["given"].dtype == np.float32 and row["given"].shape == (*made.data.size, 2)
            shown = (image[:2].permute(1, 2, 0).numpy() + 1) / 2
            # eight-bit bicubic pictures beside bilinear floats: a level and a half, more where a filter meets the edge
            np.testing.assert_allclose(row["given"][4:-4, 4:-4], shown[4:-4, 4:-4], atol=1.5 / 255)
            np.testing.assert_allclose(row["given"], shown, atol=0.03)


def test_values_between_pixels_are_interpolated_and_never_the_nearest() -> None:
    """A ramp along x enlarged and made smaller, by hand: linear between the middles of pixels."""
    ramp = np.tile(np.arange(9, dtype=np.float32)[None, :, None] / 8, (5, 1, 1))
    seen = Window(6, 4, 26, 16)
    found = fit_lying(ramp, SpatialInput(UNIT, (3, 5)), (HEIGHT, WIDTH), seen, "here")
    wanted = [((6 + 4 * i + 2) / 4 - 0.5) / 8 for i in range(5)]
    np.testing.assert_allclose(found[1, 1:-1, 0], wanted[1:-1], atol=1e-6)
    large = fit_lying(ramp, SpatialInput(UNIT, (10, 18)), (5, 9), Window(0, 0, 9, 5), "here")
    middles = np.clip((np.arange(18) + 0.5) / 2 - 0.5, 0, 8) / 8
    np.testing.assert_allclose(large[4, :, 0], middles, atol=1e-6)
    assert found.dtype == large.dtype == np.float32


def test_under_a_mirror_components_along_x_change_their_sign() -> None:
    flow = np.random.default_rng(0).uniform(-1, 1, (4, 6, 2)).astype(np.float32)
    seen = Window(0, 0, 6, 4, mirrored=True)
    found = fit_lying(flow, SpatialInput(FLOW, (4, 6)), (4, 6), seen, "here")
    assert np.array_equal(found, flow[:, ::-1] * np.array([-1, 1], np.float32))
    with pytest.raises(InputError, match="mirror"):
        fit_lying(flow, SpatialInput(ValueMap(channels=2, low=-1), (4, 6)), (4, 6), seen, "here")


def test_a_recipe_that_mirrors_what_is_not_declared_is_refused(tmp_path: Path) -> None:
    config: dict[str, Any] = {"channels": 2, "low": -1, "high": 1}
    arrays = [np.zeros((HEIGHT, WIDTH, 2))] * COUNT
    for begin in (Engine, make_plan):
        with pytest.raises(SpecError, match=r"'given' may have components along x") as caught:
            begin(recipe(tmp_path, {"type": "value-map", "config": config}, arrays, "data.mirror=0.5"), tmp_path)
        assert caught.value.code == "spec.not-mirrored" and "mirror: 0" in str(caught.value.fits)
    assert not (tmp_path / "run").exists()
    for change, more in (
        ("data.mirror=0", {}),
        ("data.moves={given: false}", {}),
        ("data.mirror=1", {"mirror": [-1, 1]}),
    ):
        part = {"type": "value-map", "config": config | more}
        made = recipe(tmp_path, part, [np.full((16, 16, 2), 0.5)] * COUNT, "data.mirror=0.5", "steps=1", change)
        row = read(made)[1][0].inputs[0]["given"]
        sign = -1 if more else 1
        assert (np.asarray(row if isinstance(row, np.ndarray) else np.load(row))[..., 0] == 0.5 * sign).all()


def test_it_is_trained_from_cached_latents_as_from_pictures(tmp_path: Path) -> None:
    """With a map missing in the first sample: the type of what is cached is not taken from it."""
    arrays = [np.full((HEIGHT, WIDTH), number / 10) for number in range(COUNT)]
    changes = ["data.fit=random-crop", "data.mirror=0.5", "data.train.config.missing=allow"]
    cache = f"data.cache={{folder: {tmp_path / 'cache'}, views: 3}}"
    made = recipe(tmp_path, {"type": "value-map", "config": {}}, arrays, *changes, cache)
    (tmp_path / "depth/0.npy").unlink()
    assert Engine(made, tmp_path).run().step == made.steps
    engine = Engine(made.model_copy(update={"out": str(tmp_path / "other")}), tmp_path)
    for _, (batch,) in zip(range(4), (parts for _, parts in engine._batches()), strict=False):
        for name, row in zip(batch.ids, batch.inputs, strict=True):
            number = int(name.partition(".")[0])
            assert ("given" in row) == (number > 0)
            if number:
                assert row["given"].dtype == np.float32 and row["given"].shape == (16, 16, 1)
                np.testing.assert_allclose(row["given"], number / 10, rtol=1e-6)
    engine._lock.close()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.full((HEIGHT, WIDTH), np.nan), "NaN"),
        (np.full((HEIGHT, WIDTH), 1.5), "values from 1.5 to 1.5"),
        (np.zeros((HEIGHT, WIDTH, 3)), "3 channel"),
        (np.zeros((HEIGHT, HEIGHT)), "cannot be cropped with it"),
    ],
)
def test_a_map_that_does_not_fit_is_named(tmp_path: Path, array: np.ndarray, said: str) -> None:
    """One value out of range cannot hide in the mean of its neighbours: it is looked for before anything is resized."""
    arrays = [np.zeros((HEIGHT, WIDTH))] * (COUNT - 1) + [array]
    made = recipe(tmp_path, {"type": "value-map", "config": {}}, arrays, "data.fit=crop")
    with pytest.raises(InputError, match=said) as caught:
        read(made)
    assert "5.png" in str(caught.value) or "5.npy" in str(caught.value)
    assert section().moves == {}
