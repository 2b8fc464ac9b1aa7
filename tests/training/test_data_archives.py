"""Archives and folders hold the same captions alike, and nothing of an archive is passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sources import opened, png, tar

from ldmkit.errors import InputError

PNG = png(np.full((8, 12, 3), 7, np.uint8))

TEXTS: dict[str, tuple[bytes, Any]] = {
    "one line": (b"a red house", "a red house"),
    "blanks around": (b"\xef\xbb\xbf  a red house \r\n", "a red house"),
    "two lines": (b"one\ntwo", "2 lines of captions"),
    "lines of old Macs": (b"one\rtwo\r", "2 lines of captions"),
    "Latin-1": ("café".encode("latin-1"), "not UTF-8"),
    "a NUL": (b"a\0b", "NUL"),
    "YOLO": (b"0 0.5 0.5 0.2 0.1\n", "YOLO"),
    "too large": (b"a" * ((1 << 20) + 1), "bytes"),
}
"""Content of a caption file, and what it is: a caption, or part of the error."""


def made(tmp_path: Path, kind: str, texts: list[bytes], **config: Any) -> Any:
    files = {f"{i}.png": PNG for i in range(len(texts))} | {f"{i}.txt": text for i, text in enumerate(texts)}
    if kind == "shards":
        tar(tmp_path / "a.tar", files)
        return opened("shards", tmp_path, shards="a.tar", **config)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return opened("folder", tmp_path, folder="pictures", captions=".txt", **config)


@pytest.mark.parametrize("kind", ["folder", "shards"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_caption(tmp_path: Path, kind: str, name: str) -> None:
    data, wanted = TEXTS[name]
    if wanted == "a red house":
        source = made(tmp_path, kind, [data])
        assert source.known(0) == source.inputs(0) == source[0].inputs == {"text": wanted}
        return
    with pytest.raises(InputError, match=wanted):
        made(tmp_path, kind, [data]).known(0)


@pytest.mark.parametrize("kind", ["folder", "shards"])
@pytest.mark.parametrize(("lines", "wanted"), [("each", ["one", "two"]), ("first", "one"), ("whole", "one\n\n two")])
def test_several_lines(tmp_path: Path, kind: str, lines: str, wanted: Any) -> None:
    source = made(tmp_path, kind, [b"one\n\n two\n", b"three"], lines=lines)
    assert [source.known(i)["text"] for i in range(2)] == [wanted, "three"]
    assert source.choices >= {"text"}
    assert ("1 .txt have several lines, and the first is read" in " ".join(source.notes)) is (lines == "first")


@pytest.mark.parametrize("kind", ["folder", "shards"])
@pytest.mark.parametrize("blank", [b"", b"  \n\t\r\n", b"\xef\xbb\xbf"])
def test_a_file_of_blanks_is_no_caption(tmp_path: Path, kind: str, blank: bytes) -> None:
    (tmp_path / "strict").mkdir()
    with pytest.raises(InputError, match=r"missing-counterpart.*1 .* have an empty \.txt"):
        made(tmp_path / "strict", kind, [b"x", blank])
    source = made(tmp_path, kind, [b"x", blank], missing="allow")
    assert [source.known(i) for i in range(2)] == [{"text": "x"}, {}]
    assert "have an empty .txt" in " ".join(source.notes)


def test_a_class_is_one_line(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"1.png": PNG, "1.cls": b" cat\n", "2.png": PNG, "2.cls": b"3\n4"})
    source = opened("shards", tmp_path, shards="a.tar")
    assert source.known(0) == {"label": "cat"}
    with pytest.raises(InputError, match="2 lines, where one class"):
        source.known(1)
    tar(tmp_path / "b.tar", {"1.png": PNG, "1.cls": b" cat\n", "2.png": PNG, "2.cls": b"\n"})
    with pytest.raises(InputError, match=r"have an empty \.cls"):
        opened("shards", tmp_path, shards="b.tar")


@pytest.mark.parametrize("zeros", [0, 512, 10240, 1 << 20, (1 << 20) + 512])
def test_archives_that_were_joined_as_they_are(tmp_path: Path, zeros: int) -> None:
    """`cat a.tar b.tar`, and more zeros between them: the reader of tar archives stops at the first end."""
    tar(tmp_path / "a.tar", {"1.png": PNG, "1.txt": b"x"})
    tar(tmp_path / "b.tar", {"2.png": PNG, "2.txt": b"y"})
    first, second = ((tmp_path / name).read_bytes() for name in ("a.tar", "b.tar"))
    (tmp_path / "c.tar").write_bytes(first + bytes(zeros) + second)
    with pytest.raises(InputError, match=rf"bad-file.*more follows at byte {len(first) + zeros}.*one by one"):
        opened("shards", tmp_path, shards="c.tar")
    assert len(opened("shards", tmp_path, shards=["a.tar", "b.tar"])) == 2
    (tmp_path / "d.tar").write_bytes(first + bytes(zeros))
    assert len(opened("shards", tmp_path, shards="d.tar")) == 1
