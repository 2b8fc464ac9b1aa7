"""Folders that ldmkit does not read, recognised by the files in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ldmkit import LdmkitError, SourceError, read_json, shown
from ldmkit.printable import first_few
from ldmkit_checkpoints.unsupported.formats import ITS_WRITER, PUBLISHED, UPDATE, Format, unsupported

_MEMBERS = (
    Format("modular_model_index.json", "a modular diffusers pipeline", "diffusers itself"),
    Format("adapter_config.json", "a peft adapter", UPDATE),
    Format("pytorch_lora_weights.*", "a diffusers LoRA", UPDATE),
    Format("learned_embeds*", "a textual inversion embedding", "the complete model, saved with it loaded"),
    Format("scheduler_config.json", "a scheduler alone", "the folder of the complete pipeline"),
    Format("preprocessor_config.json", "an image processor alone", "the folder of the complete pipeline"),
    Format("openvino_model*.xml", "an OpenVINO network", PUBLISHED),
    Format("*/openvino_model*.xml", "OpenVINO networks", PUBLISHED),
    Format("*.onnx", "an ONNX network", PUBLISHED),
    Format("*/*.onnx", "ONNX networks", PUBLISHED),
    Format("*.gguf", "a GGUF file", ITS_WRITER),
    Format("*.msgpack", "Flax (JAX) weights", PUBLISHED),
    Format("tokenizer_config.json", "a tokenizer alone", "the folder of the complete pipeline"),
    Format("vocab.json", "a tokenizer alone", "the folder of the complete pipeline"),
    Format("*-of-*.safetensors", "sharded weights without the model's config.json", "the folder of the complete model"),
    Format("*.index.json", "a shard index without the model's config.json", "the folder of the complete model"),
)
"""Patterns of file names in a folder; the first match wins."""


def refuse_unsupported_folder(path: Path) -> None:
    """Explain what a folder is that no reader accepted.

    Raises:
        SourceError: `unsupported`, `ambiguous`.
    """
    if (path / "config.json").is_file():
        _refuse_component(path)
    for other in _MEMBERS:
        if (found := next(path.glob(other.sign), None)) is not None:
            raise unsupported(f"{other.name} ({found.relative_to(path)})", other.fits, path)
    files = sorted(child.name for child in path.iterdir() if child.suffix in (".safetensors", ".ckpt"))
    if files:
        what = f"the folder holds {first_few(files, 3, shown)}, and no yaml for any of them"
        raise SourceError("ambiguous", what, where=str(path), fits=f"the file itself: {path / files[0]}")


_TOWERS = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel", "LDMBertModel", "CLIPModel")


def _refuse_component(path: Path) -> None:
    """Explain which library a config.json belongs to."""
    try:
        config = read_json(path / "config.json", infinities=True)
    except LdmkitError:
        return
    if not isinstance(config, dict):
        return
    if isinstance(name := config.get("_class_name"), str):
        raise unsupported(
            f"a diffusers component alone, {shown(name)}, which ldmkit does not read", "diffusers itself", path
        )
    listed = config.get("architectures")
    name = listed[0] if isinstance(listed, list) and listed else config.get("model_type")
    if isinstance(name, str) and name in _TOWERS:
        raise unsupported(f"a text encoder alone ({name})", "the folder of the complete pipeline", path)
    if isinstance(name, str) and ("architectures" in config or "model_type" in config):
        raise unsupported(f"a transformers model ({shown(name)})", "transformers; ldmkit generates pictures", path)


def refuse_other_library(index: dict[str, Any], where: str) -> None:
    """Explain which library runs a pipeline whose components are not torch modules.

    Raises:
        SourceError: `unsupported`.
    """
    for name, entry in index.items():
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)):
            continue
        for sign, library in (("Onnx", "ONNX"), ("ORT", "ONNX"), ("OV", "OpenVINO"), ("Flax", "Flax (JAX)")):
            if entry[1].startswith(sign):
                what = f"it is a pipeline of {library}: its {name} is {entry[1]}"
                raise SourceError("unsupported", what, where=where, fits="the same model's folder with torch weights")
