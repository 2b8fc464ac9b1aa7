"""Inputs that a model does not take are found before the first step, or skipped and counted."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
from data_sources import Squares
from ldmkit_training.before.plan import make_plan
from ldmkit_training.before.preflight import checked_data
from ldmkit_training.before.recipe import Recipe, build_stage
from ldmkit_training.check_command import checked
from ldmkit_training.loop.engine import Engine
from PIL import Image

from ldmkit.contracts.data import Geometry, Sample
from ldmkit.errors import InputError

COUNT, BAD = 100, 77


def folder(tmp_path: Path, bad: Any = "swamp", of: tuple[int, ...] = (BAD,)) -> Path:
    target = tmp_path / "d"
    target.mkdir()
    rows = []
    for number in range(COUNT):
        Image.new("RGB", (16, 16), (number,) * 3).save(target / f"{number:03}.png")
        rows.append(json.dumps({"file_name": f"{number:03}.png", "label": bad if number in of else "snow"}))
    (target / "metadata.jsonl").write_text("\n".join(rows))
    return target


def recipe(tmp_path: Path, *overrides: str, train: Any = None) -> Recipe:
    data = tiny.denoiser_data(tmp_path / "run", "validation=null", "data.validation=null")
    data["data"]["train"] = train or {"type": "folder", "config": {"folder": str(tmp_path / "d")}}
    return tiny.parse_recipe(tiny.overridden(data, overrides))


@pytest.mark.parametrize("bad", ["swamp", 99, -1, [1], {"a": 1}, 1.5])
def test_one_bad_row_of_a_hundred_ends_a_run_before_it_begins(tmp_path: Path, bad: Any) -> None:
    folder(tmp_path, bad)
    for begin in (lambda r: Engine(r, tmp_path), lambda r: make_plan(r, tmp_path), lambda r: checked(r, tmp_path)):
        with pytest.raises(InputError) as caught:
            begin(recipe(tmp_path))
        assert caught.value.code == "input.bad-rows" and caught.value.where == "data.train"
        assert "1 of 100" in caught.value.what and "077.png" in caught.value.what
    assert not (tmp_path / "run").exists()


def test_bad_rows_are_skipped_counted_and_named_where_that_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(tmp_path, of=(BAD, 80))
    allowed = recipe(tmp_path, "data.damaged=skip", "steps=25")  # 25 steps of four: each sample once
    note = next(note for note in make_plan(allowed, tmp_path).notes if "skipped" in note)
    assert note.startswith("2 sample(s)") and "'077.png', '080.png'" in note and "swamp" in note
    engine = Engine(allowed, tmp_path)
    assert engine.run().step == 25
    assert engine.batches is not None and set(engine.batches.report.damaged) == {"077.png", "080.png"}
    assert engine.batches.report.skipped == 2
    assert "2 damaged samples were skipped" in capsys.readouterr().err


def test_data_without_one_good_row_are_refused_though_damage_is_skipped(tmp_path: Path) -> None:
    folder(tmp_path, of=tuple(range(COUNT)))
    with pytest.raises(InputError) as caught:
        Engine(recipe(tmp_path, "data.damaged=skip"), tmp_path)
    assert caught.value.code == "input.bad-rows" and "100 of 100" in caught.value.what


def test_cached_latents_leave_bad_rows_out_too(tmp_path: Path) -> None:
    folder(tmp_path)
    engine = Engine(recipe(tmp_path, "data.damaged=skip", "data.cache.folder=cache", "steps=25"), tmp_path)
    engine.run()
    assert engine.batches is not None and set(engine.batches.report.damaged) == {"077.png"}


def test_rows_held_out_are_looked_at_as_far_as_they_are_used(tmp_path: Path) -> None:
    folder(tmp_path)
    source = {"type": "folder", "config": {"folder": str(tmp_path / "d")}}
    data = tiny.denoiser_data(tmp_path / "run", "validation.count=50")  # the even ones
    data["data"]["validation"] = source
    Engine(tiny.parse_recipe(data), tmp_path)
    data["validation"]["count"] = 100
    data["out"] = str(tmp_path / "other")
    with pytest.raises(InputError) as caught:
        Engine(tiny.parse_recipe(data), tmp_path)
    assert caught.value.code == "input.bad-rows" and caught.value.where == "data.validation"


@pytest.mark.parametrize("bad", [b"swamp", b"\xff\xfe"])
def test_members_of_archives_are_read_before_the_first_step(tmp_path: Path, bad: bytes) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (16, 16)).save(picture, "PNG")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in range(COUNT):
            label = bad if number == BAD else b"snow"
            for ending, content in (("png", picture.getvalue()), ("cls", label)):
                info = tarfile.TarInfo(f"{number:03}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    train = {"type": "shards", "config": {"shards": str(tmp_path / "a.tar")}}
    with pytest.raises(InputError) as caught:
        Engine(recipe(tmp_path, train=train), tmp_path)
    assert caught.value.code == "input.bad-rows" and "a.tar/077.png" in caught.value.what


class Drawn(Squares):
    """Beside each picture another one, as it was drawn: no file."""

    geometry: Mapping[str, Geometry] = {"label": "none", "hint": "none"}

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return Sample(sample.id, sample.image, {"label": "snow", "hint": Image.new("RGB", (4, 4))})


def test_what_cannot_be_kept_beside_cached_latents_is_refused_before_the_run(tmp_path: Path) -> None:
    """Also where the model does not read it: the cache holds all inputs. Engine, plan and check share this look."""
    for override, refused in (("data.cache={folder: cache}", True), ("data.cache=null", False)):
        made = recipe(tmp_path, override)
        stage = build_stage(made, tmp_path)
        if not refused:
            assert checked_data(made, stage, Drawn(), None)[1] is None
            continue
        with pytest.raises(InputError, match="a Image cannot be stored with cached latents") as caught:
            checked_data(made, stage, Drawn(), None)
        assert caught.value.code == "input.not-cacheable" and caught.value.where == "0.png: hint"
        assert "data URI" in str(caught.value.fits)
