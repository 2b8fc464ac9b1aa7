"""Makers of damaged and hostile files."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file


def copied(folder: Path, into: Path) -> Path:
    """A copy of a saved pipeline that a case may damage."""
    return Path(shutil.copytree(folder, into / "model"))


def header_of(path: Path) -> tuple[str, bytes]:
    """(header text, data) of a safetensors file."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return raw[8 : 8 + length].decode(), raw[8 + length :]


def with_header(path: Path, header: str | bytes, data: bytes, length: int | None = None) -> None:
    """Write a safetensors file with any header, and any length claimed for it."""
    text = header.encode() if isinstance(header, str) else header
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def edit_header(old: str, new: str) -> Callable[[Path], None]:
    """Replace a text in the header, once; it must be there."""

    def edit(path: Path) -> None:
        header, data = header_of(path)
        assert old in header
        with_header(path, header.replace(old, new, 1), data)

    return edit


def flip_bit(position: int, bit: int) -> Callable[[Path], None]:
    """Flip one bit; positions count from the start of the file."""

    def flip(path: Path) -> None:
        raw = bytearray(path.read_bytes())
        raw[position] ^= 1 << bit
        path.write_bytes(bytes(raw))

    return flip


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """Change the tensors of a safetensors file."""

    def edit(path: Path) -> None:
        tensors = {key: value.clone() for key, value in load_file(path).items()}
        change(tensors)
        save_file(tensors, path)

    return edit


def edit_spec(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change the spec of a saved pipeline."""
    path = folder / "pipeline.json"
    spec = json.loads(path.read_text())
    change(spec)
    spec.pop("digest", None)  # as who means the edit does
    path.write_text(json.dumps(spec))
    return folder


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


def ckpt(path: Path, content: Any, pickler: bytes | None = None) -> Path:
    """A torch file with hostile content: the zip layout of torch.save around any pickle."""
    data = pickle.dumps(content, protocol=2) if pickler is None else pickler
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
    return path


def png(path: Path, mode: str = "RGB", size: tuple[int, int] = (8, 8), **options: Any) -> Path:
    """A picture file of any mode."""
    shape = {"RGB": (3,), "RGBA": (4,), "CMYK": (4,), "LA": (2,), "L": ()}
    levels = np.random.default_rng(0).integers(1, 254, (size[1], size[0], *shape[mode]), dtype=np.uint8)
    Image.fromarray(levels, mode).save(path, **options)
    return path


def grey16(path: Path) -> Path:
    """A 16-bit grey PNG."""
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(path)
    return path


def bomb(path: Path) -> Path:
    """A PNG of a few kilobytes that claims 60 000 x 60 000 pixels."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    raw = bytearray(file.getvalue())
    raw[16:24] = struct.pack(">II", 60_000, 60_000)
    import zlib

    raw[29:33] = struct.pack(">I", zlib.crc32(bytes(raw[12:29])))
    path.write_bytes(bytes(raw))
    return path


def truncated(path: Path, keep: float = 0.5) -> Path:
    """The first part of a picture file, large enough to have a header."""
    png(path, size=(64, 64))
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    return path


def fifo(path: Path) -> Path:
    """A pipe that nobody writes to."""
    os.mkfifo(path)
    return path


def written(path: Path, data: bytes) -> Path:
    """A file with these bytes."""
    path.write_bytes(data)
    return path
