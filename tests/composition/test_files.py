"""Only ordinary files are read: a path to a FIFO, a device, a socket or a folder is refused, and never waited for."""

import io
import os
import socket
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ldmkit_checkpoints.compvis.yaml_config import read_yaml
from ldmkit_checkpoints.torchfile.state_dict import open_state_dict

import ldmkit
from ldmkit.files.json import read_json
from ldmkit.files.pictures import read_picture
from ldmkit.models.weights import open_safetensors
from ldmkit.run.recipe import read_recipe

READERS: dict[str, Callable[[Path], object]] = {
    "json": read_json,
    "yaml": read_yaml,
    "safetensors": open_safetensors,
    "torch": open_state_dict,
    "recipe": read_recipe,
    "picture": lambda path: read_picture(path, None),
}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listener(path: Path) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(os.path.relpath(path))
    sock.close()


SPECIAL: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "fifo": fifo,
    "socket": listener,
    "zero": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "proc": lambda path: path.symlink_to("/proc/self/environ"),
}


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no devices of this kind here")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("special", SPECIAL)
def test_what_is_no_ordinary_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, special: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "given"
    SPECIAL[special](path)
    with pytest.raises(ldmkit.LdmkitError) as caught:
        READERS[reader](path)
    if special != "proc":
        assert "it is a" in str(caught.value), caught.value
        assert "regular file" in str(caught.value)


def test_a_compressed_tar_is_not_unpacked_to_find_out_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "bomb.ckpt"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("a")
        info.size = 50_000_000
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    read: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tarfile, "open", lambda *_, **__: read.append(1))
        with pytest.raises(ldmkit.SourceError) as caught:
            open_state_dict(path)
    assert caught.value.code == "source.torch-invalid" and not read


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"w": torch.arange(64.0), "v": torch.ones(5)}}, path)
    return path


def place(path: Path, name: str) -> zipfile.ZipInfo:
    with zipfile.ZipFile(path) as archive:
        return next(info for info in archive.infolist() if info.filename.endswith(name))


@pytest.mark.parametrize("copy", [True, False])
def test_a_flipped_bit_in_a_tensor_is_found_when_it_is_read(checkpoint: Path, copy: bool) -> None:
    data = bytearray(checkpoint.read_bytes())
    begin = data.index(torch.arange(64.0).numpy().tobytes())
    data[begin + 17] ^= 4
    checkpoint.write_bytes(data)
    found, _ = open_state_dict(checkpoint)
    assert torch.equal(found["v"].read(copy), torch.ones(5))
    for _ in range(2):
        with pytest.raises(ldmkit.SourceError, match=r"data/0.*CRC-32") as caught:
            found["w"].read(copy)
        assert caught.value.code == "source.checksum"


def test_a_file_that_torch_wrote_without_sums_is_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(9.0)}, tmp_path / "w.ckpt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert torch.equal(open_state_dict(tmp_path / "w.ckpt")[0]["w"].read(False), torch.arange(9.0))


@pytest.mark.parametrize(("offset", "what"), [(8, "method"), (14, "sum"), (22, "size"), (30, "name")])
def test_local_headers_that_contradict_the_directory(checkpoint: Path, offset: int, what: str) -> None:
    data = bytearray(checkpoint.read_bytes())
    data[place(checkpoint, "data/0").header_offset + offset] ^= 1
    checkpoint.write_bytes(data)
    with pytest.raises(ldmkit.SourceError, match="described differently") as caught:
        open_state_dict(checkpoint)
    assert caught.value.code == "source.torch-invalid", what


def test_counts_and_names_of_a_damaged_directory(checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    end, first = whole.rindex(b"PK\x05\x06"), whole.index(b"PK\x01\x02")
    for at, bits in ((end + 8, 2), (end + 10, 64), (end + 13, 255), (end + 17, 255), (first + 46, 128)):
        data = bytearray(whole)
        data[at] ^= bits
        checkpoint.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ldmkit.SourceError):
                open_state_dict(checkpoint)
