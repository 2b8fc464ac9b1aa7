"""What a file is that ldmkit does not read: told from its name and its first bytes."""

from __future__ import annotations

import re
from pathlib import Path

from ldmkit.errors import SourceError, shown
from ldmkit.files.reading import check_ordinary
from ldmkit_checkpoints.unsupported.folders import refuse_unsupported_folder
from ldmkit_checkpoints.unsupported.formats import ITS_WRITER, PUBLISHED, Format, unsupported

_PAGE = "the file itself: what was downloaded is the page about it"


_UNPACK = "the file inside: unpack it"


_AGAIN = "the whole file: download it again"


_BEGINNINGS = (
    Format(b"version https://git-lfs", "a pointer of git-lfs in place of the file", "the file itself: git lfs pull"),
    Format(b"<!doctype html", "a web page", _PAGE),
    Format(b"<html", "a web page", _PAGE),
    Format(b"<?xml", "an XML text (OpenVINO keeps networks so)", PUBLISHED),
    Format(b"gguf", "a GGUF file", ITS_WRITER),
    Format(b"\x89hdf\r\n", "an HDF5 file, of Keras or TensorFlow", PUBLISHED),
    Format(b"\x89png\r\n", "a picture (PNG)", "a model"),
    Format(b"\xff\xd8\xff", "a picture (JPEG)", "a model"),
    Format(b"gif8", "a picture (GIF)", "a model"),
    Format(b"%pdf", "a PDF document", "a model"),
    Format(b"\x1f\x8b", "an archive (gzip)", _UNPACK),
    Format(b"bzh", "an archive (bzip2)", _UNPACK),
    Format(b"7z\xbc\xaf", "an archive (7-zip)", _UNPACK),
    Format(b"rar!", "an archive (RAR)", _UNPACK),
    Format(b"\x28\xb5\x2f\xfd", "an archive (Zstandard)", _UNPACK),
    Format(b"\xfd7zxz", "an archive (xz)", _UNPACK),
)
"""In lower case; white space before them is passed over."""


_ENDS = (
    Format((".crdownload", ".part", ".partial", ".download", ".incomplete", ".aria2", ".!qb"), "an unfinished download",
          "the whole file, under its own name"),
    Format((".onnx", ".onnx_data", ".ort"), "a network of ONNX", PUBLISHED),
    Format((".engine", ".plan", ".trt"), "a network compiled by TensorRT", PUBLISHED),
    Format((".tflite",), "a network of TensorFlow Lite", PUBLISHED),
    Format((".mlmodel", ".mlpackage", ".mlmodelc"), "a network of Core ML", PUBLISHED),
    Format((".pb", ".h5", ".hdf5", ".keras"), "a network of TensorFlow or Keras", PUBLISHED),
    Format((".msgpack",), "weights of Flax (JAX)", PUBLISHED),
    Format((".gguf", ".ggml"), "a GGUF file", ITS_WRITER),
    Format(("safetensors.index.json", "bin.index.json"), "the index of weights in shards", "the folder it is in"),
    Format(("pipeline.json", "model_index.json", "config.json"), "the configuration of a model", "the folder it is in"),
    Format((".yaml", ".yml"), "the configuration of a checkpoint", "the checkpoint, with config= this file"),
    Format((".png", ".jpg", ".jpeg", ".webp"), "a picture", "a model; `ldmkit replay` draws a picture again"),
    Format((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".zst"), "an archive", _UNPACK),
)  # fmt: skip


_SHARD = re.compile(r".+-(\d{5})-of-(\d{5})(\.[^.]+)?\.(safetensors|bin|ckpt|pt|pth)")


def refuse_unsupported_file(path: Path) -> None:
    """Say what a checkpoint's file really is, by its name and its first bytes, where it is none.

    Raises:
        SourceError: `unsupported`, `truncated`; those of `check_ordinary`.
    """
    check_ordinary(path)
    with path.open("rb") as file:
        start = file.read(256)
    word = start.lstrip().lower()
    _refuse_beginning(word, path)
    if (shard := _SHARD.fullmatch(path.name)) is not None:
        what = f"part {int(shard[1])} of {int(shard[2])} of a model's weights"
        raise unsupported(what, "the folder that holds all of them, and their index", path)
    if not start:
        raise SourceError("truncated", "the file is empty", where=str(path), fits=_AGAIN)
    if len(start) == 256 and not any(start):
        raise SourceError("truncated", "it begins with nothing but zeros", where=str(path), fits=_AGAIN)
    safe, torch_zip = start[8:10] == b'{"' and start[7] == 0, start.startswith(b"PK\x03\x04")
    if path.suffix == ".safetensors" and torch_zip:
        raise unsupported("a zip archive, as torch.save writes", "the same file under a name that ends in .ckpt", path)
    if path.suffix != ".safetensors" and safe:
        raise unsupported("a safetensors file", "the same file under a name that ends in .safetensors", path)
    if not safe and not torch_zip and (text := _text(start)) is not None:
        raise unsupported(
            f"a text: {shown(text)}", "the file itself: a server's answer may have been saved in its place", path
        )


def refuse_unsupported(path: Path) -> None:
    """Say what a file or folder is that no reader took.

    Raises:
        SourceError: `unsupported`, `ambiguous`.
    """
    if path.is_dir():
        refuse_unsupported_folder(path)
        return
    if not path.is_file():
        return
    check_ordinary(path)
    with path.open("rb") as file:
        _refuse_beginning(file.read(64).lstrip().lower(), path)
    for other in _ENDS:
        if path.name.lower().endswith(other.sign):
            raise unsupported(other.name, other.fits, path)


def _refuse_beginning(word: bytes, path: Path) -> None:
    for other in _BEGINNINGS:
        if word.startswith(other.sign):
            raise unsupported(other.name, other.fits, path)


def _text(start: bytes) -> str | None:
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:
            return None
        text = start[: error.start].decode()
    return text.strip() if all(letter.isprintable() or letter.isspace() for letter in text) else None
