"""What a folder is that ldmkit does not read: told from the files in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ldmkit.errors import LdmkitError, SourceError, shown
from ldmkit.files.json import read_json
from ldmkit.printable import first_few
from ldmkit_checkpoints.unsupported.formats import ITS_WRITER, PUBLISHED, Format, unsupported

_MEMBERS = (
    Format("modular_model_index.json", "a modular pipeline of diffusers", "diffusers itself"),
    Format("adapter_config.json", "an adapter of peft", "the whole model, with the adapter fused into it"),
    Format("pytorch_lora_weights.*", "a LoRA of diffusers", "the whole model, with the LoRA fused into it"),
    Format("learned_embeds*", "a textual inversion embedding", "the whole model, saved after load_textual_inversion"),
    Format("scheduler_config.json", "a scheduler alone", "the folder of the whole pipeline"),
    Format("preprocessor_config.json", "a processor of pictures alone", "the folder of the whole pipeline"),
    Format("openvino_model*.xml", "a network of OpenVINO", PUBLISHED),
    Format("*/openvino_model*.xml", "networks of OpenVINO", PUBLISHED),
    Format("*.onnx", "a network of ONNX", PUBLISHED),
    Format("*/*.onnx", "networks of ONNX", PUBLISHED),
    Format("*.gguf", "a GGUF file", ITS_WRITER),
    Format("*.msgpack", "weights of Flax (JAX)", PUBLISHED),
    Format("tokenizer_config.json", "a tokenizer alone", "the folder of the whole pipeline"),
    Format("vocab.json", "a tokenizer alone", "the folder of the whole pipeline"),
    Format("*-of-*.safetensors", "shards of weights, without the model's config.json", "the folder of the whole model"),
    Format("*.index.json", "an index of shards, without the model's config.json", "the folder of the whole model"),
)
"""Of folders, by patterns of names; first match wins."""


def refuse_unsupported_folder(path: Path) -> None:
    """Say what a folder is that no reader took.

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
        what = f"the folder holds {first_few(files, 3, shown)}, and no yaml that describes one of them"
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
        raise unsupported(
            f"a component of diffusers alone, {shown(name)}, that ldmkit does not read", "diffusers itself", path
        )
    listed = config.get("architectures")
    name = listed[0] if isinstance(listed, list) and listed else config.get("model_type")
    if isinstance(name, str) and name in _TOWERS:
        raise unsupported(f"a text encoder alone ({name})", "the folder of the whole pipeline", path)
    if isinstance(name, str) and ("architectures" in config or "model_type" in config):
        raise unsupported(f"a model of transformers ({shown(name)})", "transformers; ldmkit draws pictures", path)


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
