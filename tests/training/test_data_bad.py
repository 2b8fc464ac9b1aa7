"""Data that are wrong: each gives our error, with the file and what would fit."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sources import coco, lines, opened, picture, png, section, tar
from ldmkit_training.data.batches import Batches
from PIL import Image

from ldmkit.errors import LdmkitError

Case = tuple[str, dict[str, Any]]


def bytes_at(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def bomb() -> bytes:
    """A PNG of a few bytes that claims 60000 x 60000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def noise(size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)


def jpeg(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise()).save(path, "JPEG")
    return path.read_bytes()


def frames(path: Path, form: str = "GIF") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, second = Image.fromarray(noise()), Image.new("RGB", (64, 64))
    first.save(path, form, save_all=True, append_images=[second])


PICTURES: dict[str, tuple[Callable[[Path], object], str]] = {
    "zero bytes": (lambda p: bytes_at(p / "x.png", b""), "not a picture file"),
    "text": (lambda p: bytes_at(p / "x.jpg", b"hello"), "not a picture file"),
    "truncated jpeg": (lambda p: bytes_at(p / "x.jpg", jpeg(p / "x.jpg")[:-900]), "truncated or damaged"),
    "truncated png": (lambda p: bytes_at(p / "x.png", png(noise())[:-900]), "truncated or damaged"),
    "header alone": (lambda p: bytes_at(p / "x.png", png(noise())[:20]), "damaged"),
    "bomb": (lambda p: bytes_at(p / "x.png", bomb()), "at most 67108864 pixels"),
    "cmyk": (lambda p: picture(p / "x.jpg", mode="CMYK", colour=(9, 9, 9, 9)), "convert it to RGB first"),
    "alpha": (lambda p: picture(p / "x.png", mode="RGBA", colour=(9, 9, 9, 9)), "background"),
    "16 bits": (lambda p: bytes_at(p / "x.png", png(np.full((8, 8), 40000, np.uint16))), "8 bits per channel"),
    "floats": (lambda p: picture(p / "x.tif", mode="F", colour=0.5), "8 bits per channel"),
    "two frames": (lambda p: frames(p / "x.gif"), "a file with one picture"),
    "two photographs": (lambda p: frames(p / "x.jpg", "MPO"), "a file with one picture"),
    "svg": (lambda p: bytes_at(p / "x.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "PNG, JPEG"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    make, says = PICTURES[name]
    make(tmp_path)
    data = opened("folder", tmp_path, folder=".")
    with pytest.raises(LdmkitError) as caught:
        Batches(data, section(batch=1), seed=0).at(0)
    assert caught.value.code == "input.bad-file", caught.value
    assert str(tmp_path / "x.") in str(caught.value) and says in str(caught.value), caught.value
    picture(tmp_path / "y.png")
    batches = Batches(opened("folder", tmp_path, folder="."), section(batch=2, damaged="skip"), seed=0)
    assert batches.at(0)[0].ids == ("y.png", "y.png") and batches.report.skipped == 1


def _folder(*entries: Any, **config: Any) -> Callable[[Path], Case]:
    def make(path: Path) -> Case:
        picture(path / "a.png"), picture(path / "deep/b.png")
        lines(path / "metadata.jsonl", *entries)
        return "folder", {"folder": ".", **config}

    return make


def _coco(reading: bool = False, **changes: Any) -> Callable[[Path], Case]:
    def make(path: Path) -> Case:
        picture(path / "in/a.png"), picture(path / "in/b.png")
        coco(path / "boxes.json", **changes)
        return "coco", {"annotations": "boxes.json", "pictures": "in"}

    return make


def _annotation(**changes: Any) -> dict[str, Any]:
    return {"annotations": [{"image_id": 7, "category_id": 4, "bbox": [1, 1, 2, 2], **changes}]}


def _maps(labels: Any, ending: str = "png", **config: Any) -> Callable[[Path], Case]:
    def make(path: Path) -> Case:
        picture(path / "in/a.png")
        array = np.array(labels)
        (path / "maps").mkdir()
        Image.fromarray(array if array.dtype == np.uint16 else array.astype(np.uint8)).save(path / f"maps/a.{ending}")
        return "maps", {"pictures": "in", "maps": "maps", **config}

    return make


def _shards(change: Callable[[dict[str, bytes]], object], **config: Any) -> Callable[[Path], Case]:
    def make(path: Path) -> Case:
        members: dict[str, bytes] = {}
        for key in ("1", "2"):
            members |= {f"{key}.png": png(noise(8)), f"{key}.txt": b"text", f"{key}.json": b'{"score": 1}'}
        change(members)
        tar(path / "s.tar", members)
        return "shards", {"shards": "s.tar", **config}

    return make


def _broken_tar(change: Callable[[bytes], bytes]) -> Callable[[Path], Case]:
    def make(path: Path) -> Case:
        tar(path / "s.tar", {f"{key}.png": png(noise(8)) for key in "12345"})
        (path / "s.tar").write_bytes(change((path / "s.tar").read_bytes()))
        return "shards", {"shards": "s.tar"}

    return make


def _classes(path: Path) -> Case:
    picture(path / "in/loose.png"), picture(path / "in/cat/1.png")
    return "classes", {"folder": "in"}


def _unknown_class(path: Path) -> Case:
    picture(path / "in/cat/1.png"), picture(path / "in/dgo/1.png")
    return "classes", {"folder": "in", "classes": ["cat", "dog"]}


def _join(second: str) -> Callable[[Path], Case]:
    def make(path: Path) -> Case:
        picture(path / "in/a.png"), picture(path / "in/b.png")
        picture(path / "apart/a.z.png")
        picture(path / "some/a.png")
        picture(path / "twice/a.png"), picture(path / "twice/deep/a.jpg")
        names = (p.relative_to(path / second).as_posix() for p in sorted((path / second).rglob("a.*")))
        lines(path / second / "metadata.jsonl", *({"file_name": name, "text": "x"} for name in names))
        sources = [{"type": "folder", "config": {"folder": name, "missing": "allow"}} for name in ("in", second)]
        return "join", {"sources": sources}

    return make


def _no_map(path: Path) -> Case:
    picture(path / "in/b.png")
    return _maps([[0] * 12] * 8)(path)


def _flipped(data: bytes) -> bytes:
    """The third member's header is damaged: each member here takes a header and a block."""
    return data[:2048] + b"\7" * 512 + data[2560:]


def _nothing(path: Path) -> Case:
    (path / "in").mkdir()
    (path / "in/notes.txt").write_text("x")
    return "folder", {"folder": "in"}


def _named(name: str, **config: Any) -> Callable[[Path], Case]:
    def make(path: Path) -> Case:
        picture(path / "a.png")
        lines(path / "metadata.jsonl", A) if name == "metadata.csv" else None
        (path / name).write_text("file_name,text\na.png,x\n")
        return "folder", {"folder": ".", **config}

    return make


def _csv(text: str) -> Callable[[Path], Case]:
    def make(path: Path) -> Case:
        picture(path / "a.png"), picture(path / "deep/b.png")
        (path / "metadata.csv").write_text(text, encoding="latin-1")
        return "folder", {"folder": "."}

    return make


def _sidecars(captions: str = ".txt", **files: bytes) -> Callable[[Path], Case]:
    def make(path: Path) -> Case:
        picture(path / "a.png"), picture(path / "b.png")
        for name, content in files.items():
            (path / name.replace("_", ".")).write_bytes(content)
        return "folder", {"folder": ".", "captions": captions}

    return make


def _surrogate(path: Path) -> Case:
    picture(path / "a.png")
    Path(bytes(path) and (str(path) + "/b\udcff.png")).write_bytes(b"")
    return "folder", {"folder": "."}


A, B = {"file_name": "a.png", "text": "x"}, {"file_name": "deep/b.png", "text": "y"}

CASES: dict[str, tuple[Callable[[Path], Case], str, str]] = {
    "no folder": (lambda p: ("folder", {"folder": "nowhere"}), "not-found", "nowhere"),
    "no pictures": (_nothing, "no-samples", ".png, .jpg"),
    "parquet": (_named("metadata.parquet"), "metadata-format", "metadata.jsonl"),
    "kohya's json": (_named("meta_cap.json"), "metadata-format", "meta_cap.json is not read"),
    "csv and jsonl": (_named("metadata.csv"), "file-twice", "there is metadata"),
    "json by name": (_named("m.json", metadata="m.json"), "metadata-format", "a .json is not read"),
    "cells": (_csv("file_name,text\na.png,red, blue\n"), "metadata-line", "3 cells under 2 columns"),
    "quote": (_csv('file_name,text\na.png,"red\n'), "metadata-line", "unexpected end of data"),
    "semicolons": (_csv("file_name;text\na.png;red\n"), "metadata-line", "['file_name;text']"),
    "column twice": (_csv("file_name,text,text\na.png,x,y\n"), "metadata-line", "once each"),
    "csv of latin-1": (_csv("file_name,text\na.png,\xfc\ndeep/b.png,x\n"), "bad-file", "not UTF-8"),
    "csv of another name": (_csv("file_name,text\nb.png,x\n"), "metadata-line", "metadata.csv:2"),
    "latin-1": (_sidecars(a_txt=b"gr\xfcn", b_txt=b"x"), "bad-file", "another encoding (Latin-1, say)"),
    "utf-16": (_sidecars(a_txt="x".encode("utf-16"), b_txt=b"x"), "bad-file", "UTF-16"),
    "no caption": (_sidecars(a_txt=b"x"), "missing-counterpart", "1 picture(s) have no .txt: 'b.png'"),
    "no captions": (_sidecars(".caption", a_txt=b"x"), "missing-counterpart", "no picture has a .caption"),
    "empty caption": (_sidecars(a_txt=b"x", b_txt=b" \r\n"), "missing-counterpart", "have an empty .txt: 'b.png'"),
    "two lines": (_sidecars(a_txt=b"x\ny\n", b_txt=b"x"), "bad-file", "lines: each"),
    "nul": (_sidecars(a_txt=b"x\0", b_txt=b"x"), "bad-file", "a NUL character"),
    "name not utf-8": (_surrogate, "bad-file", "its name is not UTF-8"),
    "no metadata": (_folder(A, B, metadata="meta.jsonl"), "not-found", "meta.jsonl"),
    "broken json": (_folder(A, '{"file_name": "deep/b.png",'), "json-invalid", "metadata.jsonl:2"),
    "nan": (_folder(A, '{"file_name": "deep/b.png", "x": NaN}'), "json-invalid", "'NaN' is not a number"),
    "key twice": (_folder(A, '{"file_name": "deep/b.png", "x": 1, "x": 2}'), "duplicate-key", "metadata.jsonl:2"),
    "no file name": (_folder(A, {"text": "y"}), "metadata-line", '{"file_name":'),
    "a list": (_folder(A, [1]), "metadata-line", "metadata.jsonl:2"),
    "unknown file": (_folder(A, B, {"file_name": "dep/b.png"}), "metadata-line", "did you mean 'deep/b.png'"),
    "outside": (_folder(A, {"file_name": "../b.png"}), "metadata-line", "no picture '../b.png'"),
    "file twice": (_folder(A, B, A), "metadata-line", "metadata.jsonl:3"),
    "no line": (_folder(A), "missing-counterpart", "1 picture(s) have no line: 'deep/b.png'"),
    "no key": (_folder(A, {"file_name": "deep/b.png"}), "missing-counterpart", "have no 'text'"),
    "loose": (_classes, "no-class", "FOLDER/CLASS/picture"),
    "unknown class": (_unknown_class, "no-class", "did you mean 'dog'"),
    "no annotations": (lambda p: ("coco", {"annotations": "x.json", "pictures": "."}), "not-found", "x.json"),
    "no categories": (_coco(categories=3), "annotation", "there is no list 'categories'"),
    "unknown category": (_coco(**_annotation(category_id=5)), "annotation", "a `category_id` among [2, 4]"),
    "unknown image": (_coco(**_annotation(image_id=8)), "annotation", "annotations[0]"),
    "empty box": (_coco(**_annotation(bbox=[1, 1, 0, 2])), "annotation", "boxes: mend"),
    "inverted box": (_coco(**_annotation(bbox=[5, 1, -2, 2])), "annotation", "a width and height > 0"),
    "box outside": (_coco(**_annotation(bbox=[10, 1, 4, 2])), "annotation", "inside the picture, 12 x 8"),
    "no box": (_coco(**_annotation(bbox="all")), "annotation", "[x, y, width, height] in pixels"),
    "category twice": (_coco(categories=[{"id": 4, "name": "a"}] * 2), "annotation", "categories[1]"),
    "no size": (_coco(images=[{"id": 7, "file_name": "a.png"}]), "annotation", "a width and height > 0"),
    "image twice": (
        _coco(images=[{"id": i, "file_name": "a.png", "width": 12, "height": 8} for i in (7, 8)], annotations=[]),
        "annotation",
        "stand once",
    ),
    "no id": (
        _coco(images=[{"id": 1.5, "file_name": f"{i}.png", "width": 12, "height": 8} for i in "ab"], annotations=[]),
        "annotation",
        "images[0]",
    ),
    "other pictures": (
        _coco(images=[{"id": 1, "file_name": "z.png", "width": 12, "height": 8}], annotations=[]),
        "annotation",
        "file names such as 'a.png'",
    ),
    "some pictures": (
        _coco(images=[{"id": 1, "file_name": "a.png", "width": 12, "height": 8}], annotations=[]),
        "missing-counterpart",
        "1 picture(s) are not in it: 'b.png'",
    ),
    "another size": (
        _coco(images=[{"id": ord(i), "file_name": f"{i}.png", "width": 8, "height": 12} for i in "ab"], annotations=[]),
        "bad-file",
        "the picture is 12 x 8, its annotations are for 8 x 12",
    ),
    "map of another size": (_maps([[0, 1]]), "bad-file", "the map is 2 x 1, its picture 12 x 8"),
    "label out of range": (_maps([[3] * 12] * 8, classes=3), "bad-file", "0 to 2; or ignore: 3"),
    "label not listed": (_maps([[3] * 12] * 8, values=[1, 2]), "bad-file", "the values [1, 2]"),
    "coloured map": (_maps(np.zeros((8, 12, 3))), "bad-file", "a palette picture"),
    "jpeg map": (_maps([[0] * 12] * 8, "jpg"), "bad-file", "a palette or grey PNG"),
    "no map": (_no_map, "missing-counterpart", "1 picture(s) have no map: 'b.png'"),
    "no shard": (lambda p: ("shards", {"shards": "*.tar"}), "not-found", "no file matches '*.tar'"),
    "no picture in a shard": (_shards(lambda m: m.pop("2.png")), "missing-counterpart", "1 sample(s) have no picture"),
    "member missing": (_shards(lambda m: m.pop("2.txt")), "missing-counterpart", "s.tar/2"),
    "two pictures": (_shards(lambda m: m.update({"2.jpg": b""})), "file-twice", "s.tar: 2.jpg"),
    "unknown member": (_shards(lambda m: m.update({"2.wav": b""})), "unknown-member", "s.tar: 2.wav"),
    "json of another kind": (_shards(lambda m: m.update({"2.json": b"[]"})), "bad-file", "s.tar: 2.json"),
    "other keys": (_shards(lambda m: m.update({"2.json": b'{"text": 3}'})), "bad-file", "s.tar: 2.json"),
    "broken json member": (_shards(lambda m: m.update({"2.json": b"{"})), "bad-file", "s.tar: 2.json"),
    "text not utf-8": (_shards(lambda m: m.update({"2.txt": b"\xff\xfe"})), "bad-file", "s.tar: 2.txt"),
    "no tar": (_broken_tar(lambda data: b"x" * 2000), "bad-file", "an uncompressed, complete .tar"),
    "compressed": (_broken_tar(zlib.compress), "bad-file", "an uncompressed, complete .tar"),
    "empty file": (_broken_tar(lambda data: b""), "bad-file", "s.tar"),
    "cut off": (_broken_tar(lambda data: data[:2200]), "bad-file", "complete"),
    "damaged header": (_broken_tar(_flipped), "bad-file", "damaged at byte 2048"),
    "nothing in common": (_join("apart"), "nothing-joined", "the same names"),
    "one lacks": (_join("some"), "missing-counterpart", "1 sample(s) are not in it: 'b'"),
    "same name twice": (_join("twice"), "file-twice", "by: path"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_data(tmp_path: Path, name: str) -> None:
    make, code, says = CASES[name]
    kind, config = make(tmp_path)
    with pytest.raises(LdmkitError) as caught:
        data = opened(kind, tmp_path, **config)
        for index in range(len(data)):
            _ = data[index]
    assert caught.value.code == f"input.{code}", str(caught.value)
    assert says in str(caught.value), str(caught.value)
    assert caught.value.where, "the error says where"


def test_configs_that_contradict_themselves(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    for kind, config, says in (
        ("maps", {"pictures": ".", "maps": "."}, "need a suffix"),
        ("maps", {"pictures": ".", "maps": "m", "classes": 3, "values": [1]}, "give one"),
        ("maps", {"pictures": ".", "maps": "m", "classes": 3, "ignore": 2}, "ignore 2 is a class"),
        ("maps", {"pictures": ".", "maps": "m", "values": [1, 1]}, "twice"),
        ("folder", {"folder": ".", "background": [0, 0, 256]}, "background"),
        ("join", {"sources": [{"type": "folder", "config": {"folder": "."}}]}, "sources"),
    ):
        with pytest.raises(LdmkitError, match=says) as caught:
            opened(kind, tmp_path, **config)
        assert caught.value.code.startswith("spec.") and "data.train.config" in str(caught.value)


def test_two_sources_with_one_input(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    lines(tmp_path / "in/metadata.jsonl", {"file_name": "a.png", "text": "x"})
    source = {"type": "folder", "config": {"folder": "in"}}
    with pytest.raises(LdmkitError, match="both have the input 'text'"):
        opened("join", tmp_path, sources=[source, source])


def test_a_shard_that_became_shorter(tmp_path: Path) -> None:
    tar(tmp_path / "s.tar", {f"{key}.png": png(noise(8)) for key in "12"})
    data = opened("shards", tmp_path, shards="s.tar")
    (tmp_path / "s.tar").write_bytes((tmp_path / "s.tar").read_bytes()[:600])
    with pytest.raises(LdmkitError, match=r"s\.tar: 2\.png: the archive ends inside of it"):
        _ = data[1]


def test_links_in_a_shard_are_refused(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        info = tarfile.TarInfo("1.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(LdmkitError, match="no plain file"):
        opened("shards", tmp_path, shards="s.tar")


def test_the_tables_json_is_what_it_says(tmp_path: Path) -> None:
    """The sound versions of the table's data are read: what fails there fails for its own reason."""
    for make in (_folder(A, B), _coco(), _maps([[0] * 12] * 8), _shards(lambda m: None), _broken_tar(lambda d: d)):
        place = tmp_path / str(id(make))
        place.mkdir()
        kind, config = make(place)
        data = opened(kind, place, **config)
        assert all(data[i].image.size for i in range(len(data)))
    assert json.loads((coco(tmp_path / "c.json")).read_text())["categories"]
