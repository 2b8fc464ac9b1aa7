"""Archives as other programs write them: hidden members, dots in names, other endings, img2dataset's layout."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sources import opened, png, tar
from PIL import Image, features

from ldmkit.errors import InputError


def coded(form: str, level: int = 90) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (level, level, level)).save(file, form)
    return file.getvalue()


PNG = png(np.full((8, 12, 3), 7, np.uint8))
MAC = {"._000.png": b"\0\5\26\7", ".DS_Store": b"x", "__MACOSX/._000.png": b"y", "Thumbs.db": b"z"}


def test_what_systems_leave_in_archives_is_not_read_and_counted(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {**MAC, "000.png": PNG, "000.txt": b"x"})
    tar(tmp_path / "._a.tar", {"junk": b""})
    data = opened("shards", tmp_path, shards="*.tar")
    assert [data.id(i) for i in range(len(data))] == ["a.tar/000.png"]
    assert "4 hidden member(s) not read, such as '._000.png'" in data.notes[0]


def test_dots_in_names_by_both_rules(tmp_path: Path) -> None:
    members = {"v1.0/a.b.png": PNG, "v1.0/a.b.txt": b"x", "v1.0/c.png": PNG, "v1.0/c.txt": b"y"}
    tar(tmp_path / "a.tar", members)
    with pytest.raises(InputError) as caught:
        opened("shards", tmp_path, shards="a.tar")
    assert caught.value.code == "input.unknown-member" and "ending 'b.png'" in caught.value.what
    assert "names: last-dot" in (caught.value.fits or "") and "a.b.png" in (caught.value.where or "")
    data = opened("shards", tmp_path, shards="a.tar", names="last-dot")
    assert [data.id(i) for i in range(2)] == ["a.tar/v1.0/a.b.png", "a.tar/v1.0/c.png"]
    assert [data.inputs(i)["text"] for i in range(2)] == ["x", "y"]
    labels = png(np.zeros((8, 12), np.uint8))
    tar(tmp_path / "b.tar", {"a.b.png": PNG, "a.b.areas.png": labels, "a.b.note.md": b"-"})
    mapped = opened("shards", tmp_path, shards="b.tar", names="last-dot", maps={"areas": {}}, ignored=["note.md"])
    assert len(mapped) == 1 and mapped.geometry == {"areas": "map"}


@pytest.mark.parametrize(
    ("form", "ending"), [("JPEG", "jfif"), ("JPEG", "JPEG"), ("WEBP", "webp"), ("AVIF", "avif"), ("TIFF", "tif")]
)
def test_pictures_of_every_kind_that_can_be_read(tmp_path: Path, form: str, ending: str) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    tar(tmp_path / "a.tar", {f"1.{ending}": coded(form)})
    data = opened("shards", tmp_path, shards="a.tar")
    # a flat grey is kept to a few levels by each of them
    assert np.abs(data[0].image.astype(int) - 90).max() <= 4


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("1.wav", "no known ending"), ("README", "without an ending"), ("1.jxl", "a .jxl picture is not read"),
        ("1.seg.png", "names: last-dot"), ("1.npy", "no known ending"),
    ],
)  # fmt: skip
def test_other_members_are_an_error_or_skipped_and_counted(tmp_path: Path, name: str, says: str) -> None:
    tar(tmp_path / "a.tar", {"1.png": PNG, name: b"?"})
    with pytest.raises(InputError, match=says) as caught:
        opened("shards", tmp_path, shards="a.tar")
    assert caught.value.code == "input.unknown-member" and "others: skip" in str(caught.value)
    data = opened("shards", tmp_path, shards="a.tar", others="skip")
    assert len(data) == 1 and "members not read: 1 " in "; ".join(data.notes)


def test_several_pictures_of_a_sample(tmp_path: Path) -> None:
    other = png(np.full((8, 12, 3), 99, np.uint8))
    tar(tmp_path / "a.tar", {"1.png": PNG, "1.webp": coded("WEBP"), "1.hint.png": other})
    with pytest.raises(InputError, match="picture: png"):
        opened("shards", tmp_path, shards="a.tar", ignored=["hint.png"])
    data = opened("shards", tmp_path, shards="a.tar", picture="png", others="skip")
    assert data[0].image[0, 0, 0] == 7 and "1 .hint.png, 1 .webp" in "; ".join(data.notes)
    hints = opened("shards", tmp_path, shards="a.tar", picture="hint.png", others="skip")
    assert hints[0].image[0, 0, 0] == 99


def test_the_layout_of_img2dataset(tmp_path: Path) -> None:
    """Keys of version 1.45: nulls, `exif` as text, and the caption twice; beside the archives a table and figures."""
    for shard in range(2):
        members: dict[str, bytes] = {}
        for number in range(3):
            key = f"{shard:05d}{number:04d}"
            known = {
                "caption": f"caption {key}", "url": "http://localhost/1.jpg", "key": key, "status": "success",
                "error_message": None, "width": 16, "height": 16, "original_width": 900, "original_height": 700,
                "exif": "{\"Image Orientation\": \"Horizontal (normal)\"}", "sha256": "0" * 64,
            }  # fmt: skip
            members |= {f"{key}.jpg": coded("JPEG"), f"{key}.json": json.dumps(known, indent=4).encode()}
            members |= {f"{key}.txt": str(known["caption"]).encode()}
        tar(tmp_path / f"{shard:05d}.tar", members)
        (tmp_path / f"{shard:05d}.parquet").write_bytes(b"PAR1")
        (tmp_path / f"{shard:05d}_stats.json").write_text("{}")
    data = opened("shards", tmp_path, shards="*.tar", missing="allow")
    assert len(data) == 6 and data.inputs(4)["text"] == data.inputs(4)["caption"] == "caption 000010001"
    assert data.inputs(0)["original_width"] == 900 and "error_message" not in data.inputs(0)


def test_several_captions_and_byte_order_marks(tmp_path: Path) -> None:
    texts = json.dumps({"caption": ["a", "b"]}).encode()
    tar(tmp_path / "a.tar", {"1.png": PNG, "1.json": texts, "1.txt": b"\xef\xbb\xbfc"})
    data = opened("shards", tmp_path, shards="a.tar")
    assert data.inputs(0) == {"caption": ["a", "b"], "text": "c"} and data.choices == {"caption", "text"}


def strange(seed: int) -> dict[str, bytes]:
    """Members in the order in which webdataset wants them, with names of every kind."""
    draws = random.Random(seed)
    found: dict[str, bytes] = {}
    for number in range(8):
        key = draws.choice(["{:04}", "deep/{:04}", "./{:04}", "v1.0/x-{:04}", "a b/ü{:04}", "x_{:04}-y"]).format(number)
        found[f"{key}.{draws.choice(['png', 'PNG', 'jpg', 'jpeg'])}"] = PNG if draws.random() < 0.9 else coded("JPEG")
        found[f"{key}.txt"] = f"text {number} ü".encode()
        found[f"{key}.cls"] = str(number).encode()
        found |= MAC if draws.random() < 0.3 else {}
    return found


def written(path: Path, members: dict[str, bytes], form: int) -> None:
    with tarfile.open(path, "w", format=form) as archive:
        folders: set[str] = set()
        for name, data in members.items():
            parent = name.rpartition("/")[0]
            if parent and parent not in folders:
                folders.add(parent)
                info = tarfile.TarInfo(parent)
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("seed", range(4))
def test_samples_are_those_of_webdataset(tmp_path: Path, seed: int, form: int) -> None:
    wds = pytest.importorskip("webdataset", reason="the other reader is not installed")
    written(tmp_path / "a.tar", strange(seed), form)
    wanted: dict[str, Any] = {}
    for sample in wds.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False):
        if sample["__key__"] in ("Thumbs", "__MACOSX/"):  # which it takes for samples
            continue
        [picture] = [key for key in sample if key in ("png", "jpg", "jpeg")]
        image = np.asarray(Image.open(io.BytesIO(sample[picture])).convert("RGB"))
        wanted[sample["__key__"]] = (sample["txt"].decode(), int(sample["cls"]), image)
    data = opened("shards", tmp_path, shards="a.tar")
    found = {data.id(i).removeprefix("a.tar/").rpartition(".")[0]: data[i] for i in range(len(data))}
    assert list(found) == list(wanted) and len(found) == 8
    for key, (text, label, image) in wanted.items():
        assert found[key].inputs == {"text": text, "label": label} and np.array_equal(found[key].image, image)
