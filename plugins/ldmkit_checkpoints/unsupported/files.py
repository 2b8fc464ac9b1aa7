"""Files that ldmkit does not read, recognised by name and first bytes."""

from __future__ import annotations

import re
from pathlib import Path

from ldmkit import SourceError, shown
from ldmkit.files.reading import check_ordinary
from ldmkit_checkpoints.unsupported.folders import refuse_unsupported_folder
from ldmkit_checkpoints.unsupported.formats import ITS_WRITER, PUBLISHED, Format, unsupported

_PAGE = "the file itself: the page about it was downloaded instead"
_UNPACK = "the file inside: unpack it"
_AGAIN = "the complete file: download it again"

_BEGINNINGS = (
    Format(b"version https://git-lfs", "a git-lfs pointer instead of the file", "the file itself: git lfs pull"),
    Format(b"<!doctype html", "a web page", _PAGE),
    Format(b"<html", "a web page", _PAGE),
    Format(b"<?xml", "an XML file (as OpenVINO stores networks)", PUBLISHED),
    Format(b"gguf", "a GGUF file", ITS_WRITER),
    Format(b"\x89hdf\r\n", "an HDF5 file (Keras or TensorFlow)", PUBLISHED),
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
"""In lower case; leading white space is skipped."""

_ENDS = (
    Format((".crdownload", ".part", ".partial", ".download", ".incomplete", ".aria2", ".!qb"), "an unfinished download",
          "the complete file, under its own name"),
    Format((".onnx", ".onnx_data", ".ort"), "an ONNX network", PUBLISHED),
    Format((".engine", ".plan", ".trt"), "a network compiled by TensorRT", PUBLISHED),
    Format((".tflite",), "a TensorFlow Lite network", PUBLISHED),
    Format((".mlmodel", ".mlpackage", ".mlmodelc"), "a Core ML network", PUBLISHED),
    Format((".pb", ".h5", ".hdf5", ".keras"), "a TensorFlow or Keras network", PUBLISHED),
    Format((".msgpack",), "Flax (JAX) weights", PUBLISHED),
    Format((".pkl", ".pickle"), "a pickle of Python objects (as EDM is published), which runs code when it is read",
          "a model whose file holds tensors alone"),
    Format((".gguf", ".ggml"), "a GGUF file", ITS_WRITER),
    Format(("safetensors.index.json", "bin.index.json"), "an index of sharded weights", "the folder that holds it"),
    Format(("pipeline.json", "model_index.json", "config.json"), "the config of a model", "the folder that holds it"),
    Format((".yaml", ".yml"), "the config of a checkpoint", "the checkpoint, with this file as config="),
    Format((".png", ".jpg", ".jpeg", ".webp"), "a picture", "a model; `ldmkit replay` draws a picture again"),
    Format((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".zst"), "an archive", _UNPACK),
)  # fmt: skip

_SHARD = re.compile(r".+-(\d{5})-of-(\d{5})(\.[^.]+)?\.(safetensors|bin|ckpt|pt|pth)")


def refuse_unsupported_file(path: Path) -> None:
    """Check by name and first bytes that a file is a checkpoint, and explain what it is otherwise.

    Raises:
        SourceError: `unsupported`, `truncated`; those of `check_ordinary`.
    """
    check_ordinary(path)
    with path.open("rb") as file:
        start = file.read(256)
    word = start.lstrip().lower()
    _refuse_beginning(word, path)
    if (shard := _SHARD.fullmatch(path.name)) is not None:
        what = f"shard {int(shard[1])} of {int(shard[2])} of a model's weights"
        raise unsupported(what, "the folder with all shards and their index", path)
    if not start:
        raise SourceError("truncated", "the file is empty", where=str(path), fits=_AGAIN)
    if len(start) == 256 and not any(start):
        raise SourceError("truncated", "it begins with zeros only", where=str(path), fits=_AGAIN)
    safe, torch_zip = start[8:10] == b'{"' and start[7] == 0, start.startswith(b"PK\x03\x04")
    if path.suffix == ".safetensors" and torch_zip:
        raise unsupported("a zip archive, as torch.save writes", "the same file under a name that ends in .ckpt", path)
    if path.suffix != ".safetensors" and safe:
        raise unsupported("a safetensors file", "the same file under a name that ends in .safetensors", path)
    if not safe and not torch_zip and (text := _text(start)) is not None:
        raise unsupported(
            f"a text: {shown(text)}", "the file itself: a server's response may have been saved instead", path
        )


def refuse_unsupported(path: Path) -> None:
    """Explain what a file or folder is that no reader accepted.

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
