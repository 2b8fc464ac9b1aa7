"""What a file or folder is that no reader takes: told from its name, its first bytes, or the files in it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ldmkit.errors import LdmkitError, SourceError, shown
from ldmkit.files.json import read_json
from ldmkit.files.reading import check_ordinary


class Other(NamedTuple):
    """A kind of file: how it is known (its beginning, or the end of its name), its name, and what would load it."""

    sign: Any
    name: str
    fits: str


_PAGE = "the file itself: what was downloaded is the page about it"
_UNPACK = "the file inside: unpack it"
_AGAIN = "the whole file: download it again"
_WRITER = "the program that wrote it; ldmkit does not load it yet"
_SAFE = "the model's .safetensors or .ckpt, or diffusers' folder"

_BEGINNINGS = (
    Other(b"version https://git-lfs", "a pointer of git-lfs in place of the file", "the file itself: git lfs pull"),
    Other(b"<!doctype html", "a web page", _PAGE),
    Other(b"<html", "a web page", _PAGE),
    Other(b"<?xml", "an XML text (OpenVINO keeps networks so)", _SAFE),
    Other(b"gguf", "a GGUF file", _WRITER),
    Other(b"\x89hdf\r\n", "an HDF5 file, of Keras or TensorFlow", _SAFE),
    Other(b"\x89png\r\n", "a picture (PNG)", "a model"),
    Other(b"\xff\xd8\xff", "a picture (JPEG)", "a model"),
    Other(b"gif8", "a picture (GIF)", "a model"),
    Other(b"%pdf", "a PDF document", "a model"),
    Other(b"\x1f\x8b", "an archive (gzip)", _UNPACK),
    Other(b"bzh", "an archive (bzip2)", _UNPACK),
    Other(b"7z\xbc\xaf", "an archive (7-zip)", _UNPACK),
    Other(b"rar!", "an archive (RAR)", _UNPACK),
    Other(b"\x28\xb5\x2f\xfd", "an archive (Zstandard)", _UNPACK),
    Other(b"\xfd7zxz", "an archive (xz)", _UNPACK),
)
"""In lower case; white space before them is passed over."""

_ENDS = (
    Other((".crdownload", ".part", ".partial", ".download", ".incomplete", ".aria2", ".!qb"), "an unfinished download",
          "the whole file, under its own name"),
    Other((".onnx", ".onnx_data", ".ort"), "a network of ONNX", _SAFE),
    Other((".engine", ".plan", ".trt"), "a network compiled by TensorRT", _SAFE),
    Other((".tflite",), "a network of TensorFlow Lite", _SAFE),
    Other((".mlmodel", ".mlpackage", ".mlmodelc"), "a network of Core ML", _SAFE),
    Other((".pb", ".h5", ".hdf5", ".keras"), "a network of TensorFlow or Keras", _SAFE),
    Other((".msgpack",), "weights of Flax (JAX)", _SAFE),
    Other((".gguf", ".ggml"), "a GGUF file", _WRITER),
    Other(("safetensors.index.json", "bin.index.json"), "the index of weights in shards", "the folder it is in"),
    Other(("pipeline.json", "model_index.json", "config.json"), "the configuration of a model", "the folder it is in"),
    Other((".yaml", ".yml"), "the configuration of a checkpoint", "the checkpoint, with config= this file"),
    Other((".png", ".jpg", ".jpeg", ".webp"), "a picture", "a model; `ldmkit replay` draws a picture again"),
    Other((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".zst"), "an archive", _UNPACK),
)  # fmt: skip
_SHARD = re.compile(r".+-(\d{5})-of-(\d{5})(\.[^.]+)?\.(safetensors|bin|ckpt|pt|pth)")

_MEMBERS = (
    Other("modular_model_index.json", "a modular pipeline of diffusers", "diffusers itself"),
    Other("adapter_config.json", "an adapter of peft", "the whole model, with the adapter fused into it"),
    Other("pytorch_lora_weights.*", "a LoRA of diffusers", "the whole model, with the LoRA fused into it"),
    Other("learned_embeds*", "a textual inversion embedding", "the whole model, saved after load_textual_inversion"),
    Other("scheduler_config.json", "a scheduler alone", "the folder of the whole pipeline"),
    Other("preprocessor_config.json", "a processor of pictures alone", "the folder of the whole pipeline"),
    Other("openvino_model*.xml", "a network of OpenVINO", _SAFE),
    Other("*/openvino_model*.xml", "networks of OpenVINO", _SAFE),
    Other("*.onnx", "a network of ONNX", _SAFE),
    Other("*/*.onnx", "networks of ONNX", _SAFE),
    Other("*.gguf", "a GGUF file", _WRITER),
    Other("*.msgpack", "weights of Flax (JAX)", _SAFE),
    Other("tokenizer_config.json", "a tokenizer alone", "the folder of the whole pipeline"),
    Other("vocab.json", "a tokenizer alone", "the folder of the whole pipeline"),
    Other("*-of-*.safetensors", "shards of weights, without the model's config.json", "the folder of the whole model"),
    Other("*.index.json", "an index of shards, without the model's config.json", "the folder of the whole model"),
)
"""Of folders, by patterns of names; first match wins."""


def refuse_other_bytes(path: Path) -> None:
    """Say what a checkpoint's file really is, by its name and its first bytes, where it is none.

    Raises:
        SourceError: `unsupported`, `truncated`; those of `check_ordinary`.
    """
    check_ordinary(path)
    with path.open("rb") as file:
        start = file.read(256)
    word = start.lstrip().lower()
    for other in _BEGINNINGS:
        if word.startswith(other.sign):
            raise _is(other.name, other.fits, path)
    if (shard := _SHARD.fullmatch(path.name)) is not None:
        what = f"part {int(shard[1])} of {int(shard[2])} of a model's weights"
        raise _is(what, "the folder that holds all of them, and their index", path)
    if not start:
        raise SourceError("truncated", "the file is empty", where=str(path), fits=_AGAIN)
    if len(start) == 256 and not any(start):
        raise SourceError("truncated", "it begins with nothing but zeros", where=str(path), fits=_AGAIN)
    safe, torch_zip = start[8:10] == b'{"' and start[7] == 0, start.startswith(b"PK\x03\x04")
    if path.suffix == ".safetensors" and torch_zip:
        raise _is("a zip archive, as torch.save writes", "the same file under a name that ends in .ckpt", path)
    if path.suffix != ".safetensors" and safe:
        raise _is("a safetensors file", "the same file under a name that ends in .safetensors", path)
    if not safe and not torch_zip and (text := _text(start)) is not None:
        raise _is(f"a text: {shown(text)}", "the file itself: a server's answer may have been saved in its place", path)


def refuse_other_files(path: Path) -> None:
    """Say what a file or folder is that no reader took.

    Raises:
        SourceError: `unsupported`, `ambiguous`.
    """
    if path.is_dir():
        _refuse_folder(path)
        return
    if not path.is_file():
        return
    check_ordinary(path)
    with path.open("rb") as file:
        word = file.read(64).lstrip().lower()
    for other in _BEGINNINGS:
        if word.startswith(other.sign):
            raise _is(other.name, other.fits, path)
    for other in _ENDS:
        if path.name.lower().endswith(other.sign):
            raise _is(other.name, other.fits, path)


def _refuse_folder(path: Path) -> None:
    if (path / "config.json").is_file():
        _refuse_component(path)
    for other in _MEMBERS:
        if (found := next(path.glob(other.sign), None)) is not None:
            raise _is(f"{other.name} ({found.relative_to(path)})", other.fits, path)
    files = sorted(child.name for child in path.iterdir() if child.suffix in (".safetensors", ".ckpt"))
    if files:
        what = f"the folder holds {_listed(files)}, and no yaml that describes one of them"
        raise SourceError("ambiguous", what, where=str(path), fits=f"the file itself: {path / files[0]}")


_TOWERS = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel", "LDMBertModel", "CLIPModel")


def _refuse_component(path: Path) -> None:
    """Say whose config.json it is."""
    try:
        config = read_json(path / "config.json", infinities=True)
    except LdmkitError:
        return
    if not isinstance(config, dict):
        return
    if isinstance(name := config.get("_class_name"), str):
        raise _is(f"a component of diffusers alone, {shown(name)}, that ldmkit does not read", "diffusers itself", path)
    listed = config.get("architectures")
    name = listed[0] if isinstance(listed, list) and listed else config.get("model_type")
    if isinstance(name, str) and name in _TOWERS:
        raise _is(f"a text encoder alone ({name})", "the folder of the whole pipeline", path)
    if isinstance(name, str) and ("architectures" in config or "model_type" in config):
        raise _is(f"a model of transformers ({shown(name)})", "transformers; ldmkit draws pictures", path)


def refuse_other_library(index: dict[str, Any], where: str) -> None:
    """Say which library runs a pipeline whose components are no torch modules.

    Raises:
        SourceError: `unsupported`.
    """
    for name, entry in index.items():
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)):
            continue
        for sign, library in (("Onnx", "ONNX"), ("ORT", "ONNX"), ("OV", "OpenVINO"), ("Flax", "Flax (JAX)")):
            if entry[1].startswith(sign):
                what = f"it is a pipeline of {library}: its {name} is {entry[1]}"
                raise SourceError(
                    "unsupported", what, where=where, fits="the same model's folder with weights of torch"
                )


def _text(start: bytes) -> str | None:
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:
            return None
        text = start[: error.start].decode()
    return text.strip() if all(letter.isprintable() or letter.isspace() for letter in text) else None


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(map(shown, listed[:3])) + more


def _is(what: str, fits: str, path: Path) -> SourceError:
    return SourceError("unsupported", f"it is {what}", where=str(path), fits=fits)
