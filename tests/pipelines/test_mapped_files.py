"""Weights that lie in a file that changes are not computed with; copies, and a file's replacement, do no harm."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ldmkit_checkpoints.torchfile.state_dict import open_state_dict
from torch import nn

import ldmkit
from ldmkit.errors import RunError
from ldmkit.models.mapped import check_mapped
from ldmkit.models.saving import save_part
from ldmkit.models.weights import assign, open_safetensors

CALL = {"label": "lake"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ldmkit.load("miniworld").save(tmp_path_factory.mktemp("mapped") / "model")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def rewrite(path: Path) -> None:
    """Same length, other bytes, in place."""
    os.utime(path, (1, 1))  # whatever the clock's step is, the next write moves the time on
    with path.open("r+b") as file:
        file.seek(-64, os.SEEK_END)
        file.write(bytes(64))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


CHANGES: list[Callable[[Path], None]] = [rewrite, truncate, append]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: str(change.__name__))
def test_a_run_does_not_begin_on_a_file_that_changed(folder: Path, change: Callable[[Path], None]) -> None:
    pipe = ldmkit.load(folder)
    pipe(CALL, steps=1)
    change(folder / "denoiser.safetensors")
    with pytest.raises(RunError, match=r"run\.file-changed.*denoiser\.safetensors.*mapped=False"):
        pipe(CALL, steps=1)
    with pytest.raises(RunError, match="file-changed"):
        pipe.to(torch.float64)
    with pytest.raises(RunError, match="file-changed"):
        pipe.save(folder.with_name("copy"))


def test_every_part_is_looked_at(folder: Path) -> None:
    pipe = ldmkit.load(folder)
    truncate(folder / "codec.safetensors")
    with pytest.raises(RunError, match=r"codec\.safetensors"):
        pipe.decode(torch.zeros(1, 4, 4, 4))
    with pytest.raises(RunError, match=r"codec\.safetensors"):
        save_part("codec", pipe.codec, folder.with_name("codec"))


def test_a_change_during_a_run_is_told_at_its_end(folder: Path) -> None:
    pipe = ldmkit.load(folder)
    with pytest.raises(RunError, match="file-changed"):
        pipe(CALL, steps=2, on_step=lambda step: append(folder / "denoiser.safetensors"))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: str(change.__name__))
def test_copies_do_not_mind(folder: Path, change: Callable[[Path], None]) -> None:
    pipe = ldmkit.load(folder, mapped=False)
    wide = ldmkit.load(folder, dtype=torch.float64)  # converted: copies as well
    codec = ldmkit.load_codec(folder, mapped=False)
    before = pipe(CALL, steps=1).images
    for name in ("denoiser", "codec"):
        change(folder / f"{name}.safetensors")
    assert torch.equal(pipe(CALL, steps=1).images, before)
    check_mapped([wide.denoiser, codec])


def test_a_new_file_of_that_name_does_no_harm(folder: Path) -> None:
    pipe = ldmkit.load(folder)
    before = pipe(CALL, steps=1).images
    pipe.save(folder)
    assert torch.equal(pipe(CALL, steps=1).images, before)
    shutil.rmtree(folder)
    assert torch.equal(pipe(CALL, steps=1).images, before)


def test_what_was_moved_out_of_its_file_does_not_mind(folder: Path) -> None:
    pipe = ldmkit.load(folder).to(torch.float64)
    truncate(folder / "denoiser.safetensors")
    pipe(CALL, steps=1)


def test_files_of_others_are_looked_at_too(tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(4, 4), "bias": torch.zeros(4)}}, tmp_path / "a.ckpt")
    with torch.device("meta"):
        layer = nn.Linear(4, 4)
    assign(layer, open_state_dict(tmp_path / "a.ckpt")[0], "layer")
    check_mapped([layer])
    append(tmp_path / "a.ckpt")
    with pytest.raises(RunError, match=r"a\.ckpt"):
        check_mapped([layer])


def test_files_are_closed_with_the_weights(folder: Path) -> None:
    listing = Path("/proc/self/fd")
    if not listing.exists():
        pytest.skip("this system does not list a process's files")
    count = len(list(listing.iterdir()))
    for _ in range(3):
        open_safetensors(folder / "codec.safetensors")
        ldmkit.load_codec(folder)
    gc.collect()
    assert len(list(listing.iterdir())) <= count + 1
