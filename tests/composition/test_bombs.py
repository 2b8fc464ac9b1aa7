"""Small files that ask for much: refused before any of it is made, in the memory of this process."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ldmkit_conditioners.bpe import CLIP_END, CLIP_START, clip_vocabulary
from ldmkit_conditioners.tokenizer_files import MAX_ID
from ldmkit_training.before.recipe import read_training_recipe as read_training
from PIL import Image

import ldmkit
from ldmkit.files.json import parse_json, read_json
from ldmkit.files.pictures import read_picture
from ldmkit.models import weights
from ldmkit.models.weights import open_safetensors
from ldmkit.run.recipe import read_recipe

SIDE = 65_535


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return start + b"".join(chunks) + chunk(b"IDAT", zlib.compress(bytes(72))) + chunk(b"IEND", b"")


def packed(size: int) -> bytes:
    made = zlib.compressobj(1)
    return b"".join(made.compress(bytes(1 << 20)) for _ in range(size >> 20)) + made.flush()


def picture(kind: str) -> bytearray:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    return bytearray(file.getvalue())


def jpeg() -> bytes:
    data = picture("JPEG")
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", SIDE, SIDE)
    return bytes(data)


def gif() -> bytes:
    data = picture("GIF")
    data[6:10] = struct.pack("<HH", SIDE, SIDE)
    return bytes(data)


def bmp() -> bytes:
    data = picture("BMP")
    data[18:26] = struct.pack("<ii", 2**30, 2**30)
    return bytes(data)


def tiff() -> bytes:
    data = picture("TIFF")
    for tag in (256, 257):
        at = next(at for kind in (3, 4) if (at := data.find(struct.pack("<HH", tag, kind))) >= 0)
        data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 2**30)
    return bytes(data)


HUGE: dict[str, Callable[[], bytes]] = {
    "png": lambda: png(100_000, 10_000),
    "jpeg": jpeg,
    "gif": gif,
    "bmp": bmp,
    "tiff": tiff,
    "ppm": lambda: b"P6 100000 10000 255\n",
}


@pytest.mark.parametrize("kind", HUGE)
def test_pictures_that_claim_more_pixels_than_any(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"start.{kind}"
    path.write_bytes(HUGE[kind]())
    with pytest.raises(ldmkit.InputError, match="picture-too-large"):
        read_picture(path)


@pytest.mark.parametrize("name", [b"iTXt", b"zTXt", b"iCCP"])
def test_texts_in_a_png_that_unpack_to_much(name: bytes, tmp_path: Path) -> None:
    data = packed(256 << 20)
    body = {b"iTXt": b"ldmkit\0\1\0\0\0" + data, b"zTXt": b"ldmkit\0\0" + data, b"iCCP": b"p\0\0" + data}[name]
    path = tmp_path / "a.png"
    path.write_bytes(png(8, 8, chunk(name, body)))
    with pytest.raises(ldmkit.SourceError, match=r"not-a-png|no-recipe"):
        read_recipe(path)
    with pytest.raises(ldmkit.InputError, match="picture-unreadable"):
        read_picture(path)


def sparse(path: Path, size: int, head: bytes) -> Path:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return path


@pytest.mark.parametrize("length", [100 << 30, 2**63, 2**64 - 1])
def test_a_header_of_100_gigabytes(length: int, tmp_path: Path) -> None:
    path = sparse(tmp_path / "a.safetensors", 200 << 30, struct.pack("<Q", length))
    with pytest.raises(ldmkit.SourceError, match="truncated"):
        open_safetensors(path)


def test_a_header_of_tensors_without_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAX_TENSORS", 1000)
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps({f"k{i}": empty for i in range(1001)}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ldmkit.SourceError, match=r"too-large.*tensors"):
        open_safetensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "text", ["[" * 10**6, '{"a":' * 10**6, "9" * 10**6, "1e999", "-1e999", "[1, 2e400]", "9" * 400 + ".5"]
)
def test_json_that_is_deep_or_has_numbers_that_are_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ldmkit.SourceError, match="json-invalid"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\udfff": 1}', '["\\udc00\\ud800"]', '"\ud800"'])
def test_half_a_character_is_none(text: str) -> None:
    with pytest.raises(ldmkit.SourceError, match="json-invalid"):
        parse_json(text, "a")
    assert parse_json('"\\ud83d\\ude00 \\u00e9"', "a") == "\U0001f600 \u00e9"


def test_infinities_where_they_are_asked_for() -> None:
    assert parse_json("[1e999, -Infinity, 1.5]", "a", infinities=True) == [float("inf"), float("-inf"), 1.5]


def nine(levels: int) -> str:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text", [nine(10), "a: " + "[" * 200_000, "steps: " + "9" * 100_000, "steps: [" + "1, " * 400_000 + "1]"]
)
def test_training_recipes_of_few_bytes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text + "\nstage: denoiser\n")
    with pytest.raises(ldmkit.SourceError) as caught:
        read_training(path)
    found: Any = caught.value.code
    assert found in ("source.yaml-aliases", "source.yaml-invalid", "source.too-large")


@pytest.mark.parametrize("number", [MAX_ID + 1, 2**31, 2**32 - 1, 2**40])
def test_ids_of_a_vocabulary_that_leave_a_gap_of_gigabytes(number: int, tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, CLIP_START: 1, CLIP_END: number}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ldmkit.SourceError, match=r"bad-vocabulary.*vocab\.json"):
        clip_vocabulary(tmp_path, 100)
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, CLIP_START: 1, CLIP_END: 2}))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<x>": number}))
    with pytest.raises(ldmkit.SourceError, match=r"bad-vocabulary.*added_tokens\.json"):
        clip_vocabulary(tmp_path, 100)
    if number < 2**32:
        model = {"type": "BPE", "vocab": {"a": 0, CLIP_START: 1, CLIP_END: number}, "merges": []}
        (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model, "added_tokens": []}))
        with pytest.raises(ldmkit.SourceError, match=r"bad-vocabulary.*tokenizer\.json"):
            clip_vocabulary(tmp_path, 100)
