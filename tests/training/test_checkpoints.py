"""Checkpoints on a bad day: damaged, half-written, of another run, and on a disk that is full."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from ldmkit_training.loop import checkpoints
from ldmkit_training.loop.checkpoints import Checkpoint

from ldmkit.errors import RunError, SourceError, SpecError


def some(step: int, size: int = 5) -> Checkpoint:
    weights = {"a": torch.arange(size, dtype=torch.float32) + step, "b": torch.tensor(step)}
    return Checkpoint(step, {"weights": weights, "ema": {"a": torch.ones(2)}}, {"recipe": {"x": step}})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_written_and_read(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoints.write(tmp_path, some(step), keep=2)
    assert names(tmp_path) == ["step-00000002", "step-00000003"]
    newest = checkpoints.newest(tmp_path)
    assert newest == tmp_path / "step-00000003"
    read = checkpoints.read(newest)
    assert read.step == 3 and read.state["recipe"] == {"x": 3}
    tiny.assert_same(dict(read.tensors["weights"]), dict(some(3).tensors["weights"]))
    assert not any(path.read_bytes()[:2] == b"PK" for path in newest.iterdir()), "no pickle in a zip file"


@pytest.mark.parametrize("name", ["weights.safetensors", "ema.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("how", ["flipped", "short", "gone"])
def test_a_damaged_one_is_left_out_aloud(tmp_path: Path, name: str, how: str) -> None:
    for step in (1, 2):
        checkpoints.write(tmp_path, some(step), keep=2)
    path = tmp_path / "step-00000002" / name
    bytes_ = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "short":
        path.write_bytes(bytes_[: len(bytes_) // 2])
    else:
        bytes_[-9] ^= 4
        path.write_bytes(bytes_)
    # a wrong digest looks like a damaged file
    named = "weights" if (name, how) == ("manifest.json", "flipped") else name
    with pytest.warns(UserWarning, match=f"step-00000002 is left out.*{named}"):
        assert checkpoints.newest(tmp_path) == tmp_path / "step-00000001"
    with pytest.raises(SourceError) as caught:
        checkpoints.verify(path.parent)
    assert caught.value.code == "source.checkpoint-damaged" and named in str(caught.value.where)


def test_a_run_goes_on_from_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "run"
    tiny.train(tiny.denoiser_recipe(out))
    before = tiny.tensors(out / "checkpoints")
    weights = out / "checkpoints/step-00000006/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"oops")
    with pytest.warns(UserWarning, match="step-00000006 is left out"):
        tiny.train(tiny.denoiser_recipe(out))
    tiny.assert_same(before, tiny.tensors(out / "checkpoints"))


def test_damaged_ones_of_later_steps_do_not_push_out_good_ones(tmp_path: Path) -> None:
    for step in (10, 20):
        checkpoints.write(tmp_path, some(step), keep=2)
    (tmp_path / "step-00000020/ema.safetensors").unlink()
    with pytest.warns(UserWarning, match="left out"):
        assert checkpoints.newest(tmp_path) == tmp_path / "step-00000010"
    # the run goes on from step 10, and is stopped at step 13
    checkpoints.write(tmp_path, some(13), keep=1)
    assert names(tmp_path) == ["step-00000013"]


def test_older_ones_go_when_the_kill_came_before_their_removal(tmp_path: Path) -> None:
    tiny.train(tiny.denoiser_recipe(tmp_path, "checkpoints.keep=2"))
    names = [path.name for path in sorted((tmp_path / "checkpoints").iterdir())]
    assert names == ["step-00000004", "step-00000006"], "as after a kill between the writing and the removal"
    tiny.train(tiny.denoiser_recipe(tmp_path, "checkpoints.keep=1"))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000006"]


def test_what_a_kill_leaves_is_removed(tmp_path: Path) -> None:
    checkpoints.write(tmp_path, some(1), keep=1)
    for left in (".writing-x", ".retired-y"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "weights.safetensors").touch()
    checkpoints.clean(tmp_path)
    assert names(tmp_path) == ["step-00000001"]


def test_another_format_is_refused(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path, Checkpoint(1, {}, {"format": 2}), keep=1)
    with pytest.raises(SourceError) as caught:
        checkpoints.read(folder)
    assert caught.value.code == "source.checkpoint-version"


@pytest.fixture
def small_files() -> object:
    """The operating system refuses files larger than 2 kB, as a full disk does in the middle of one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, small_files: object) -> None:
    checkpoints.write(tmp_path, some(1), keep=1)
    before = {path.name: path.read_bytes() for path in (tmp_path / "step-00000001").iterdir()}
    with pytest.raises(RunError) as caught:
        checkpoints.write(tmp_path, some(2, size=5000), keep=1)
    error = caught.value
    assert error.code == "run.checkpoint-failed" and os.strerror(errno.EFBIG) in error.what
    assert "step-00000002" in str(error.where) and "step-00000001" in str(error.fits)
    assert names(tmp_path) == ["step-00000001"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "step-00000001").iterdir()} == before


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_noticed_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    checkpoints.write(tmp_path, some(1), keep=1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "rename")), full)
    with pytest.raises(RunError) as caught:
        checkpoints.write(tmp_path, some(2), keep=1)
    assert os.strerror(errno.ENOSPC) in caught.value.what
    assert names(tmp_path) == ["step-00000001"]
    checkpoints.verify(tmp_path / "step-00000001")


def test_differences_are_named_by_path() -> None:
    was = {"a": 1, "data": {"batch": 4, "workers": 0}, "model": {"w": [1, 2]}}
    now = {"a": 1, "data": {"batch": 4, "workers": 3}, "model": {"w": [1, 3]}}
    assert checkpoints.difference(was, now, ()) == ("data.workers", 0, 3)
    assert checkpoints.difference(was, now, ("data.workers",)) == ("model.w", [1, 2], [1, 3])
    assert checkpoints.difference(was, {**was, "new": 1}, ()) == ("new", None, 1)
    assert checkpoints.difference(was, was, ()) is None


def test_other_frozen_weights_are_noticed(tmp_path: Path) -> None:
    tiny.train(tiny.codec_recipe(tmp_path / "codec", "steps=2"))
    codec = (f"model.codec={{from: {tmp_path / 'codec'}}}", "model.denoiser.config.channels=2", "steps=2")
    tiny.train(tiny.denoiser_recipe(tmp_path / "run", *codec))
    shutil.rmtree(tmp_path / "codec")
    tiny.train(tiny.codec_recipe(tmp_path / "codec", "steps=3"))
    with pytest.raises(SpecError) as caught:
        tiny.train(tiny.denoiser_recipe(tmp_path / "run", *codec))
    assert caught.value.code == "spec.other-weights" and "'codec'" in caught.value.what
