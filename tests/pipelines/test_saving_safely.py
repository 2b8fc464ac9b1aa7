"""Saving replaces a good folder by one that loads, or by none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import ldmkit
from ldmkit.errors import InputError, RunError
from ldmkit.models import saving


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    return ldmkit.load("miniworld")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("store", [torch.int8, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn, "half"])
def test_a_dtype_that_does_not_load_is_refused(pipe: ldmkit.Pipeline, tmp_path: Path, store: Any) -> None:
    folder = pipe.save(tmp_path / "model")
    before = contents(folder)
    with pytest.raises(InputError, match=r"input\.dtype.*float32"):
        pipe.save(folder, store=store)
    assert contents(folder) == before


def test_values_that_a_dtype_cannot_hold_are_refused(tmp_path: Path) -> None:
    pipe = ldmkit.load("miniworld", mapped=False)
    weight = next(iter(pipe.denoiser.parameters()))
    folder = pipe.save(tmp_path / "model", store=torch.float16)
    before = contents(folder)
    with torch.no_grad():
        weight.view(-1)[:2] = torch.tensor([1e5, -7e4])
    with pytest.raises(InputError, match=r"input\.dtype.*2 value\(s\) of .* exceed 65504.*bfloat16"):
        pipe.save(folder, store=torch.float16)
    assert contents(folder) == before
    pipe.save(folder, store=torch.bfloat16)
    stored = next(iter(ldmkit.load(folder).denoiser.parameters())).view(-1)[:2]
    assert torch.allclose(stored, torch.tensor([1e5, -7e4]), rtol=2**-8)  # half a unit of bfloat16's last place


def test_what_was_written_is_verified_before_the_old_goes(
    pipe: ldmkit.Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pipe.save(tmp_path / "model")
    before, real = contents(folder), saving.write_safetensors

    def short(path: Path, tensors: Any, metadata: Any = None) -> None:
        real(path, dict(list(tensors.items())[1:]), metadata)

    monkeypatch.setattr(saving, "write_safetensors", short)
    with pytest.raises(RunError, match=r"cannot-read-back.*missing"):
        pipe.save(folder)
    assert contents(folder) == before and [p.name for p in tmp_path.iterdir()] == ["model"]


def test_everything_is_on_disk_before_it_is_renamed(
    pipe: ldmkit.Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.add(os.fstat(handle).st_ino), real(handle))[1])
    folder = pipe.save(tmp_path / "model")
    assert {p.stat().st_ino for p in folder.rglob("*")} | {folder.stat().st_ino, tmp_path.stat().st_ino} <= synced
    (picture,) = pipe({"label": "lake"}, steps=1).save(tmp_path / "a.png")
    assert picture.stat().st_ino in synced
