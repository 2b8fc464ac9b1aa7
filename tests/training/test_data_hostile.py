"""Data folders of strangers: what is no ordinary file, or lies about itself, is refused by name, at once."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from counting import calls_at_most
from ldmkit_training.data.sources.coco import read_annotations
from ldmkit_training.data.sources.folder import read_metadata
from ldmkit_training.data.sources.tars import MAX_EXTENSION_BYTES, Member, members

from ldmkit.errors import InputError
from ldmkit.files.picture_files import MAX_FILE_BYTES


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 2**30)


def bound(path: Path) -> None:
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


STRANGE: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "a link to /dev/zero": (zero, ("input.not-a-file",)),
    "a FIFO": (lambda path: os.mkfifo(path), ("input.not-a-file",)),
    "a socket": (bound, ("input.not-a-file",)),
    "a folder": (lambda path: path.mkdir(), ("input.not-a-file",)),
    "100 GB of nothing": (sparse, ("input.too-large", "input.bad-file")),
    "nothing": (lambda path: None, ("input.not-found",)),
}
READERS: dict[str, Callable[[Path], object]] = {
    "metadata.jsonl": lambda path: read_metadata(path, {}),
    "annotations.json": read_annotations,
    "shard.tar": members,
}


@pytest.mark.skipif(os.name != "posix", reason="such files are POSIX's")
@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_ordinary_file(name: str, strange: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # undone at the end
    make, codes = STRANGE[strange]
    make(tmp_path / name)
    if name.endswith(".tar") and strange == "100 GB of nothing":
        assert members(tmp_path / name) == []  # two empty blocks end an archive, whatever follows
        return
    with pytest.raises(InputError) as caught:
        READERS[name](tmp_path / name)
    assert caught.value.code in codes and name in str(caught.value)


def archive(path: Path, *infos: tarfile.TarInfo, content: bytes = b"12345") -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as made:
        for info in infos:
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return path


def renumbered(block: bytes, size: bytes) -> bytes:
    """A header with another size, and the sum that goes with it."""
    changed = block[:124] + size + block[136:148] + b" " * 8 + block[156:]
    return changed[:148] + f"{sum(changed):06o}\0 ".encode() + changed[156:]


def test_fields_of_pax(tmp_path: Path) -> None:
    info = tarfile.TarInfo("0.txt")
    info.pax_headers = {"size": "-512"}
    path = archive(tmp_path / "a.tar", info)
    with pytest.raises(InputError, match=r"bad-file.*a\.tar"), calls_at_most(10_000):  # it used to go round and round
        members(path)
    info = tarfile.TarInfo("0.txt")
    info.pax_headers = {"comment": "x" * (MAX_EXTENSION_BYTES + 1)}
    with pytest.raises(InputError, match=r"bad-file.*claims"):
        members(archive(tmp_path / "b.tar", info))
    info = tarfile.TarInfo("0.txt")
    info.pax_headers = {"comment": "known", "mtime": "1.5"}
    assert [member.read() for member in members(archive(tmp_path / "c.tar", info))] == [b"12345"]
    data = (tmp_path / "c.tar").read_bytes()
    for was, now in (
        (b"19 comment", b"99 comment"),
        (b"19 comment", b"0\xff comment"),
        (b"mtime=1.5", b"mtime=\xffx5"),
    ):
        (tmp_path / "d.tar").write_bytes(data.replace(was, now))
        try:
            found = members(tmp_path / "d.tar")
        except InputError as problem:
            assert "d.tar" in str(problem)
        else:
            assert [member.read() for member in found] == [b"12345"]


def test_headers_that_lie_about_sizes(tmp_path: Path) -> None:
    good = archive(tmp_path / "a.tar", tarfile.TarInfo("0.txt"), tarfile.TarInfo("1.txt")).read_bytes()
    assert len(members(tmp_path / "a.tar")) == 2
    negative = b"\xff" * 11 + b"\x00"  # -256
    for size in (negative, b"\x80" + b"\xff" * 11, b"77777777777\0"):
        (tmp_path / "b.tar").write_bytes(renumbered(good[:512], size) + good[512:])
        with pytest.raises(InputError, match=r"bad-file.*b\.tar"):
            members(tmp_path / "b.tar")
    huge = Member(tmp_path / "a.tar", "0.png", 512, MAX_FILE_BYTES + 1)
    with pytest.raises(InputError, match=r"bad-file.*0\.png"):
        huge.read()


def test_a_long_chain_of_headers(tmp_path: Path) -> None:
    info = tarfile.TarInfo("0.txt")
    info.type = tarfile.XHDTYPE
    link = info.tobuf(tarfile.USTAR_FORMAT)
    (tmp_path / "a.tar").write_bytes(link * 5000 + bytes(1024))
    with pytest.raises(InputError, match="bad-file"):
        members(tmp_path / "a.tar")
