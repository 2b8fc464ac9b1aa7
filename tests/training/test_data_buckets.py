"""Aspect-ratio buckets: which picture has which, batches of one bucket each, and nothing dropped or enlarged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from data_sources import lines, opened, picture, png, section
from ldmkit_codecs.identity import IdentityCodec
from ldmkit_training.before.plan import make_plan
from ldmkit_training.before.preflight import checked_data
from ldmkit_training.before.recipe import build_stage
from ldmkit_training.data.batches import Batches, validation_batches
from ldmkit_training.data.bucket_section import BucketsSection
from ldmkit_training.data.buckets import Bucketed, buckets_of, in_buckets, size_for
from ldmkit_training.data.cache.reading import latent_caches
from ldmkit_training.data.order import place
from ldmkit_training.data.section import open_data

from ldmkit import Batch, Dataset, InputError, Sample, SpecError

BUCKETS = {"step": 8, "ratio": 2.0}
SIDES = [(40, 40), (64, 32), (33, 70), (90, 50), (41, 47), (200, 90), (32, 32), (55, 40), (40, 61)]
"""(height, width)."""


class Mixed(Dataset):
    """Pictures of mixed sizes, whose columns tell where they are."""

    def __init__(self, sides: Sequence[tuple[int, int]], mixture: tuple[tuple[int, int], ...] = ()) -> None:
        self.sides, self.mixture = list(sides), mixture
        self.geometry: Mapping[str, Any] = {"layout": "boxes", "semantic": "map"}

    def __len__(self) -> int:
        return len(self.sides)

    def id(self, index: int) -> str:
        return f"{index}.png"

    def picture_size(self, index: int) -> tuple[int, int] | None:
        return self.sides[index] if index % 2 else None  # of the others it cannot tell

    def __getitem__(self, index: int) -> Sample:
        height, width = self.sides[index]
        columns = np.broadcast_to(np.arange(width, dtype=np.uint8)[None, :, None], (height, width, 3))
        box = [0.25, 0.25, 0.75, 0.75]
        labels = np.broadcast_to(np.arange(width, dtype=np.uint8)[None], (height, width))
        return Sample(self.id(index), columns.copy(), {"layout": [{"label": "a", "box": box}], "semantic": labels})


def bucketed(**changes: Any) -> Any:
    return section(size=[32, 32], buckets=BUCKETS | changes.pop("buckets", {}), **changes)


def test_sizes_have_the_area_and_no_larger_one() -> None:
    sizes = BucketsSection(step=64).sizes((512, 512))
    assert (512, 512) in sizes and (448, 576) in sizes and (384, 640) in sizes and (320, 768) not in sizes
    for height, width in sizes:
        assert height % 64 == width % 64 == 0 and max(height, width) <= 2 * min(height, width)
        assert height * width <= 512 * 512 < max((height + 64) * width, height * (width + 64))
        assert (width, height) in sizes


def test_a_picture_has_the_bucket_of_the_nearest_proportions_that_it_fills() -> None:
    rule = bucketed()
    assert size_for((40, 40), rule) == (32, 32) and size_for((64, 32), rule) == (40, 24)  # 48 x 16 is longer than 2
    for height, width in SIDES:
        found = size_for((height, width), rule)
        assert found is not None and found[0] <= height and found[1] <= width, "not enlarged"
    assert size_for((30, 30), rule) == (24, 24) and size_for((30, 30), bucketed(buckets={"small": "enlarge"})) == (
        32,
        32,
    )
    assert size_for((30, 30), bucketed(buckets={"small": "leave-out"})) is None
    assert size_for((9, 200), rule) == (8, 16), "cut to the ratio"
    assert size_for((7, 200), rule) is None


def reference(of: Sequence[int], batch: int, seed: int, mixture: Any, steps: int) -> list[list[tuple[int, int]]]:
    """Queues in plain Python."""
    waiting: dict[int, list[tuple[int, int]]] = {}
    made: list[list[tuple[int, int]]] = []
    position = 0
    while len(made) < steps:
        epoch, index = place(seed, len(of), position, mixture)
        position += 1
        if of[index] < 0:
            continue
        queue = waiting.setdefault(of[index], [])
        queue.append((epoch, index))
        if len(queue) == batch:
            made.append(waiting.pop(of[index]))
    return made


@pytest.mark.parametrize("mixture", [(), ((4, 3), (5, 2))])
def test_batches_are_of_one_bucket_and_resume_anywhere(mixture: Any) -> None:
    data, rule = in_buckets(Mixed(SIDES, mixture), bucketed(mirror=0.5, fit="random-crop")), bucketed()
    rule = bucketed(mirror=0.5, fit="random-crop")
    found = buckets_of(data)
    assert found is not None
    wanted = reference(found.of.tolist(), 4, 5, mixture, 60)
    whole = list(islice(Batches(data, rule, seed=5).steps(0), 60))
    for (step, [batch]), rows in zip(whole, wanted, strict=True):
        assert [f"{index}.png" for _, index in rows] == list(batch.ids), step
        assert batch.images is not None and batch.images.shape[-2:] == batch.size == found.size(rows[0][1])
    for start in (1, 17, 59):
        [batch] = Batches(data, rule, seed=5).at(start)
        assert_same(batch, whole[start][1][0])
    [ahead] = Batches(data, bucketed(mirror=0.5, fit="random-crop", workers=2), seed=5).at(17)
    assert_same(ahead, whole[17][1][0])
    halves = [Batches(data, rule, seed=5, rank=rank, world=2).at(17)[0] for rank in (0, 1)]
    assert halves[0].ids + halves[1].ids == whole[17][1][0].ids and halves[0].size == halves[1].size
    parts = Batches(data, rule, seed=5, accumulate=2).at(17)
    assert parts[0].ids + parts[1].ids == whole[17][1][0].ids


def assert_same(one: Batch, other: Batch) -> None:
    assert one.ids == other.ids and one.size == other.size
    assert one.images is not None and other.images is not None and torch.equal(one.images, other.images)


def test_no_picture_is_dropped_and_all_are_used_alike() -> None:
    data = in_buckets(Mixed(SIDES), bucketed())
    steps = islice(Batches(data, bucketed(), seed=1).steps(0), len(SIDES) * 25)  # 4 * 25 epochs
    used = Counter(name for _, [batch] in steps for name in batch.ids)
    assert len(used) == len(SIDES)
    # what waits is less than a batch of each bucket, and an epoch is under way
    assert all(abs(many - 100) <= 4 for many in used.values())


def test_what_lies_on_a_picture_moves_into_its_bucket() -> None:
    rule = bucketed(batch=1)
    for index, (height, width) in enumerate(SIDES):
        data = in_buckets(Mixed([(height, width)] * 2), rule)
        [batch] = Batches(data, rule, seed=0).at(0)
        rows, columns = batch.size
        assert batch.images is not None
        labels, image = batch.inputs[0]["semantic"], (batch.images[0, 0] + 1) * 127.5
        assert labels.shape == batch.size
        # the picture's columns were numbered as the labels are: both show the same columns
        assert float((image - torch.from_numpy(labels.astype(np.float32))).abs().max()) < 1.5 * width / columns, index
        unit = min(height / rows, width / columns)
        cut = [max(0.0, (v * side - (side - unit * own) / 2) / (unit * own)) for v, side, own in
               zip([0.25, 0.25], (width, height), (columns, rows), strict=True)]  # fmt: skip
        assert batch.inputs[0]["layout"][0]["box"][:2] == pytest.approx(cut, abs=1.0 / min(rows, columns))


def test_random_crops_of_buckets_enlarge_nothing() -> None:
    data = in_buckets(Mixed([(40, 40)] * 3), bucketed())
    for scale in ([0.1, 0.2], [0.1, 1.0]):
        rule = bucketed(fit="random-crop", crop_scale=scale)
        for _, [batch] in islice(Batches(data, rule, seed=0).steps(0), 5):
            assert batch.images is not None
            seen = (batch.images[:, 0, 0, -1] - batch.images[:, 0, 0, 0]) * 127.5
            assert float(seen.min()) >= 30, "32 columns of the picture at least"
    larger = bucketed(fit="random-crop", crop_scale=[0.1, 0.2], buckets={"small": "enlarge"})
    [batch] = Batches(in_buckets(Mixed([(40, 40)] * 3), larger), larger, seed=0).at(0)
    assert (
        batch.images is not None and float(((batch.images[:, 0, 0, -1] - batch.images[:, 0, 0, 0]) * 127.5).max()) < 10
    )


def test_the_notes_say_what_becomes_of_every_picture(tmp_path: Path) -> None:
    for number, (height, width) in enumerate([*SIDES, (30, 30)]):
        picture(tmp_path / "d" / f"{number}.png", (width, height))
    notes = "\n".join(Bucketed(opened("folder", tmp_path, folder="d"), bucketed()).notes)
    assert "bucket(s) (height x width: pictures): " in notes and "32 x 32: " in notes
    assert "1 picture(s) are smaller than their bucket and have one of their own size: '9.png'" in notes
    assert "they wait for the next one's" in notes and "fewer pictures than a batch" in notes
    held = "\n".join(Bucketed(opened("folder", tmp_path, folder="d"), bucketed(), trained=False).notes)
    assert "smaller than their bucket" in held and "batch" not in held
    left = Bucketed(opened("folder", tmp_path, folder="d"), bucketed(buckets={"small": "leave-out"}))
    assert any("left out: '9.png'" in note for note in left.notes)
    ids = {name for _, [b] in islice(Batches(left, bucketed(buckets={"small": "leave-out"}), seed=0).steps(0), 40)
           for name in b.ids}  # fmt: skip
    assert ids == {f"{number}.png" for number in range(9)}


def test_what_cannot_be_is_an_error_that_says_what_fits(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no multiple of the buckets' step of 64"):
        section(size=[100, 64], buckets={})
    with pytest.raises(SpecError, match="ratio of 2"):
        section(size=[64, 256], buckets={"step": 8})
    with pytest.raises(SpecError, match="other sizes than theirs"):
        bucketed(fit="exact")
    picture(tmp_path / "d" / "long.png", (7, 100))
    with pytest.raises(InputError) as caught:
        Bucketed(opened("folder", tmp_path, folder="d"), bucketed())
    assert caught.value.code == "input.picture-size" and "long.png" in caught.value.what
    assert bucketed().fit == "crop" and bucketed(fit="resize").fit == "resize"


def test_held_out_pictures_have_their_buckets_too() -> None:
    data = in_buckets(Mixed(SIDES), bucketed())
    held = validation_batches(data, bucketed(), None)
    assert sorted(name for batch in held for name in batch.ids) == [f"{n}.png" for n in range(len(SIDES))]
    found = buckets_of(data)
    assert found is not None
    for batch in held:
        assert batch.images is not None and batch.images.shape[-2:] == batch.size
        assert [found.size(row) for row in batch.draws.rows] == [batch.size] * len(batch.ids)


def run_data(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    """Pictures of mixed proportions with labels, and masks beside them that a conditioner reads."""
    rows = []
    for number, (height, width) in enumerate(SIDES):
        noise = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / f"{number}.png").write_bytes(png(noise))
        rows.append({"file_name": f"{number}.png", "label": "snow"})
    lines(tmp_path / "d/metadata.jsonl", *rows)
    data = tiny.denoiser_data(tmp_path / "run", *overrides)
    source = {"type": "folder", "config": {"folder": str(tmp_path / "d")}}
    data["data"] |= {"train": source, "validation": source, "size": [32, 32], "buckets": BUCKETS, "mirror": 0.5}
    data["data"] |= {"fit": "random-crop", "batch": 2}
    return data


@pytest.mark.parametrize("cache", [None, {"folder": "latents", "views": 2}])
@pytest.mark.filterwarnings("ignore:data.validation is data.train")
def test_a_run_with_buckets_resumes_in_the_same_bits(tmp_path: Path, cache: Any) -> None:
    data = run_data(tmp_path)
    data["data"]["cache"] = cache
    data |= {"previews": {"every": 3, "count": 4, "steps": 2}, "schedule": {"type": "constant"}, "steps": 4}
    tiny.train(tiny.parse_recipe(data), tmp_path)
    assert (tmp_path / "run/previews/step-00000003.png").is_file()
    data["out"] = str(tmp_path / "stopped")
    tiny.train(tiny.parse_recipe(data | {"steps": 2, "previews": None}), tmp_path)
    tiny.train(tiny.parse_recipe(data | {"previews": None}), tmp_path)
    tiny.assert_same(tiny.tensors(tmp_path / "run/model"), tiny.tensors(tmp_path / "stopped/model"))
    assert (cache is None) == (not list(tmp_path.glob("latents/*x*")))


def test_cached_latents_are_those_of_the_pictures(tmp_path: Path) -> None:
    rule = bucketed(batch=2, cache={"folder": "kept"})
    for mixture in ((), ((4, 3), (5, 2))):
        data = in_buckets(Mixed(SIDES, mixture), rule)
        caches = latent_caches(data, rule, IdentityCodec(), tmp_path)
        kept, read = Batches(data, rule, seed=4, cache=caches), Batches(data, rule, seed=4)
        for step in range(12):
            [one], [other] = kept.at(step), read.at(step)
            assert one.ids == other.ids and one.size == other.size
            assert one.latents is not None and other.images is not None and torch.equal(one.latents, other.images)
            assert [row["layout"] for row in one.inputs] == [row["layout"] for row in other.inputs]
            for mine, theirs in zip(one.inputs, other.inputs, strict=True):
                assert np.array_equal(mine["semantic"], theirs["semantic"])


def test_the_plan_measures_the_largest_bucket_and_lists_them(tmp_path: Path) -> None:
    data = run_data(tmp_path)
    data["data"]["validation"] = None
    plan = make_plan(tiny.parse_recipe(data), tmp_path)
    assert plan.shapes["pictures"] == (2, 3, 32, 32)
    assert any("bucket(s) (height x width: pictures)" in note for note in plan.notes)


def test_a_step_of_the_buckets_that_the_codec_cannot_take_is_refused(tmp_path: Path) -> None:
    data = tiny.codec_data(tmp_path / "run")
    source = run_data(tmp_path)["data"]["train"]
    data["data"] |= {"train": source, "validation": None, "size": [30, 30], "buckets": {"step": 6}}
    with pytest.raises(InputError, match="multiples of 4, not all of 6"):
        tiny.train(tiny.parse_recipe(data), tmp_path)


def test_a_hint_beside_its_picture_goes_into_its_bucket(tmp_path: Path) -> None:
    data = run_data(tmp_path)
    rows = []
    for number, (height, width) in enumerate(SIDES):
        ramp = np.broadcast_to(np.linspace(0, 255, width * 2)[None, :, None], (height * 2, width * 2, 3))
        (tmp_path / "d/hints").mkdir(exist_ok=True)
        (tmp_path / f"d/hints/{number}.png").write_bytes(png(ramp.astype(np.uint8)))
        (tmp_path / f"d/{number}.png").write_bytes(png(ramp[::2, ::2].astype(np.uint8)))
        rows.append({"file_name": f"{number}.png", "label": "snow", "hint": f"hints/{number}.png"})
    lines(tmp_path / "d/metadata.jsonl", *rows)
    data["model"]["conditioners"]["hint"] = {"type": "image"}
    data["model"]["denoiser"]["config"]["in_channels"] = 6
    made = tiny.parse_recipe(data)
    stage = build_stage(made, tmp_path)
    train, _ = open_data(made.data, tmp_path)
    train, _ = checked_data(made, stage, in_buckets(train, made.data), None)
    seen = set()
    for _, [batch] in islice(Batches(train, made.data, seed=0, names=stage.inputs).steps(0), 20):
        assert batch.images is not None
        seen.add(batch.size)
        for image, inputs in zip(batch.images, batch.inputs, strict=True):
            hint = torch.from_numpy(np.asarray(inputs["hint"]).copy()).permute(2, 0, 1).float() / 127.5 - 1
            assert hint.shape == image.shape
            assert float((hint - image).abs().mean()) < 0.03
    assert len(seen) > 2
