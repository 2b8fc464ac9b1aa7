"""What was saved is what is loaded: digests of files, tensors and the spec."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ldmkit
from ldmkit.cli import main
from ldmkit.errors import InputError, SourceError
from ldmkit.models.digests import PAGE, TENSORS, page_sums
from ldmkit.models.saving import save_part
from ldmkit.models.spec import PipelineSpec
from ldmkit.models.weights import open_safetensors, read_metadata

MODES: tuple[Any, ...] = ("fast", "full")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ldmkit.load("miniworld").save(tmp_path_factory.mktemp("digests") / "model")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def flip(path: Path, position: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ (1 << bit)]))


def spec_of(folder: Path) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads((folder / "pipeline.json").read_text())
    return spec


def refused(folder: Path, code: str, *words: str, verify: Any = "fast") -> SourceError:
    with pytest.raises(SourceError) as caught:
        ldmkit.load(folder, verify=verify)
    assert caught.value.code == f"source.{code}" and all(word in str(caught.value) for word in words), caught.value
    return caught.value


def test_every_file_has_its_sha256_and_every_tensor_too(saved: Path) -> None:
    files = {p.relative_to(saved).as_posix(): p for p in saved.rglob("*") if p.is_file() and p.name != "pipeline.json"}
    listed = spec_of(saved)["files"]
    assert set(listed) == set(files)
    for name, path in files.items():
        assert listed[name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert listed[name]["size"] == path.stat().st_size
    path = saved / "denoiser.safetensors"
    kept = json.loads(read_metadata(path)[TENSORS])
    for key, lazy in open_safetensors(path).items():
        raw = lazy.read(True).reshape(-1).view(torch.uint8).numpy().tobytes()
        assert kept[key] == hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("verify", ["fast", "full", "off"])
def test_what_is_as_it_was_saved_loads(saved: Path, verify: Any) -> None:
    assert ldmkit.load(saved, verify=verify).spec.hash == ldmkit.load("miniworld", verify=verify).spec.hash


@pytest.mark.parametrize("verify", MODES)
def test_every_flipped_bit_of_weights_is_found(saved: Path, tmp_path: Path, verify: Any) -> None:
    codec = ldmkit.load_codec(saved)
    folder = save_part("codec", codec, tmp_path / "codec")
    path, draw = folder / "codec.safetensors", random.Random(0)
    for _ in range(40):
        position, bit = draw.randrange(path.stat().st_size), draw.randrange(8)
        flip(path, position, bit)
        with pytest.raises((SourceError, ldmkit.WeightsError)):
            ldmkit.load_codec(folder, verify=verify)
        flip(path, position, bit)
    ldmkit.load_codec(folder, verify=verify)


@pytest.mark.parametrize("verify", MODES)
def test_the_error_names_file_and_tensor(folder: Path, verify: Any) -> None:
    flip(folder / "denoiser.safetensors", (folder / "denoiser.safetensors").stat().st_size - 1, 0)
    last = max(open_safetensors(folder / "denoiser.safetensors"), key=lambda key: _end(folder, key))
    found = refused(folder, "digest-differs", "denoiser.safetensors", repr(last), verify=verify)
    assert found.fits is not None and "verify='off'" in found.fits
    ldmkit.load(folder, verify="off")
    ldmkit.load_codec(folder, verify=verify)  # which reads other files


def _end(folder: Path, key: str) -> int:
    with (folder / "denoiser.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return int(header[key]["data_offsets"][1])


@pytest.mark.parametrize("verify", MODES)
def test_other_files_count_too(folder: Path, verify: Any) -> None:
    vocabulary = folder / "conditioners" / "text" / "tokenizer.json"
    before = vocabulary.read_bytes()
    vocabulary.write_bytes(before.replace(b"0", b"1", 1))
    refused(folder, "digest-differs", "tokenizer.json", verify=verify)
    vocabulary.unlink()
    refused(folder, "not-found", "tokenizer.json", verify=verify)
    os.mkfifo(vocabulary)
    refused(folder, "not-a-file", "a FIFO", verify=verify)
    vocabulary.unlink()
    vocabulary.write_bytes(before)
    (vocabulary.parent / "added_tokens.json").write_text("{}")
    refused(folder, "not-listed", "added_tokens.json", verify=verify)
    (vocabulary.parent / "added_tokens.json").rename(vocabulary.parent / ".DS_Store")
    ldmkit.load(folder, verify=verify)


@pytest.mark.parametrize("verify", MODES)
def test_an_edited_spec_says_how_to_go_on(folder: Path, verify: Any) -> None:
    path, spec = folder / "pipeline.json", spec_of(folder)
    path.write_text(json.dumps(spec))  # other spaces and line ends are the same spec
    ldmkit.load(folder, verify=verify)
    spec["defaults"]["steps"] += 1
    path.write_text(json.dumps(spec))
    found = refused(folder, "spec-edited", "pipeline.json", verify=verify)
    assert found.fits is not None and "'digest'" in found.fits
    assert ldmkit.load(folder, verify="off").defaults.steps == spec["defaults"]["steps"]
    del spec["digest"]
    path.write_text(json.dumps(spec))
    edited = ldmkit.load(folder)
    assert edited.defaults.steps == spec["defaults"]["steps"]
    assert ldmkit.load(edited.save(folder), verify="full").defaults.steps == spec["defaults"]["steps"]


def test_every_flipped_bit_of_a_spec_is_found(folder: Path) -> None:
    path, draw = folder / "pipeline.json", random.Random(1)
    good, parsed, changed = path.read_bytes(), spec_of(folder), 0
    for _ in range(200):
        position = draw.randrange(len(good))
        flip(path, position, draw.randrange(8))
        try:
            same = json.loads(path.read_bytes()) == parsed  # a space that became another one
        except ValueError:
            same = False
        changed += not same
        if not same:
            with pytest.raises(ldmkit.LdmkitError):
                ldmkit.load(folder)
        path.write_bytes(good)
    assert changed > 150, changed


def test_a_folder_without_digests_loads_and_full_refuses_it(folder: Path) -> None:
    spec = spec_of(folder)
    spec = {key: value for key, value in spec.items() if key not in ("files", "digest")}
    (folder / "pipeline.json").write_text(json.dumps(spec))
    flip(folder / "denoiser.safetensors", 1_000_000, 0)
    ldmkit.load(folder)
    refused(folder, "no-digests", verify="full")


def test_full_refuses_what_has_no_digests_and_other_words(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "model.ckpt")
    refused(tmp_path / "model.ckpt", "no-digests", "model.ckpt", verify="full")
    with pytest.raises(InputError, match=r"input\.verify.*fast, full, off"):
        ldmkit.load("miniworld", verify="paranoid")  # type: ignore[arg-type]


def test_digests_are_no_part_of_the_model(saved: Path) -> None:
    spec = PipelineSpec.read(spec_of(saved))
    assert spec.files and spec.digest and spec.hash == ldmkit.load(saved).spec.hash
    assert ldmkit.load(saved).spec.files is None


def test_a_part_alone_is_compared_as_well(tmp_path: Path) -> None:
    folder = save_part("codec", ldmkit.load_codec("miniworld"), tmp_path / "codec")
    path = folder / "codec.json"
    spec = json.loads(path.read_text())
    ldmkit.load_codec(folder, verify="full")
    path.write_text(json.dumps({**spec, "config": {**spec["config"], "norm_groups": 4}}))
    with pytest.raises(SourceError, match="spec-edited"):
        ldmkit.load_codec(folder)
    assert ldmkit.load_codec(folder, verify="off").config.norm_groups == 4
    path.write_text(json.dumps(spec))
    flip(folder / "codec.safetensors", (folder / "codec.safetensors").stat().st_size - 1, 7)
    with pytest.raises(SourceError, match="digest-differs"):
        ldmkit.load_codec(folder)


def test_the_command_line_takes_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(folder / "denoiser.safetensors", 10_000_000, 3)
    sample = ["sample", str(folder), "--label", "lake", "--steps", "1", "-o", str(tmp_path / "a.png")]
    assert main(sample) != 0
    assert "digest-differs" in capsys.readouterr().err
    assert main([*sample, "--verify", "off"]) == 0
    assert main(["import", str(folder), "--verify", "off", "--out", str(folder)]) == 0
    assert main([*sample, "--verify", "full"]) == 0


@pytest.mark.parametrize("size", [0, 1, 7, 8, PAGE - 1, PAGE, PAGE + 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 9])
def test_page_sums_are_what_they_are_said_to_be(tmp_path: Path, size: int) -> None:
    raw = np.random.default_rng(size).bytes(size)
    (tmp_path / "file").write_bytes(raw)
    padded = raw + bytes(-size % PAGE)
    words = [int.from_bytes(padded[i : i + 8], "little") for i in range(0, len(padded), 8)]
    sums = [sum(words[i : i + PAGE // 8]) % 2**64 for i in range(0, len(words), PAGE // 8)]
    packed = b"".join(one.to_bytes(8, "little") for one in sums) + size.to_bytes(8, "little")
    assert page_sums(tmp_path / "file") == hashlib.blake2b(packed, digest_size=16).hexdigest()
