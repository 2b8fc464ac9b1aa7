"""The components of a diffusers pipeline, by its class and model_index.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit import SourceError, read_json, shown

TOWERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2", "bert": "tokenizer"}
"""Text encoder -> its tokenizer."""

_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""Components without effect on pictures, skipped without a note."""

_TOKENIZERS = {
    "clip-text": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "t5-text": ("T5Tokenizer", "T5TokenizerFast"),
    "ldm-text": ("BertTokenizer", "BertTokenizerFast"),
}
_AS_WRITTEN = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes that load tokenizer.json as is, accepted if tokenizer_config.json names them too."""


def components_of(index: Mapping[str, Any], where: str) -> tuple[dict[str, str], list[str]]:
    """The components that a pipeline class uses, with their classes, and notes on entries it does not use.

    Raises:
        SourceError: `unsupported`: an entry that names no class; a missing component.
    """
    name = str(index["_class_name"])
    needed, more = _read_by(name)
    found, notes = dict[str, str](), list[str]()
    for key, entry in index.items():
        if not isinstance(entry, list) or key.startswith("_"):
            if key in (*needed, *more):
                raise _no_class(key, entry, where)
            continue
        if key in (*needed, *more):
            if len(entry) != 2 or not all(isinstance(part, (str, type(None))) for part in entry):
                raise _no_class(key, entry, where)
            if entry[1] is not None:
                found[key] = entry[1]
        elif any(entry) and key not in _UNUSED:
            notes.append(
                "watermarker: no watermark is drawn into pictures"
                if key == "watermarker"
                else f"{key}: not used, as diffusers' {name} has no such component"
            )
    for key in needed:
        if key not in found:
            what = f"{key} is missing, which {name} requires"
            raise SourceError("unsupported", what, where=f"{where}: {key}", fits="a library and a class")
    return found, notes


def _read_by(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The required and the optional components of a pipeline class."""
    if name in ("DDPMPipeline", "DDIMPipeline"):
        return ("unet", "scheduler"), ()
    if name == "LDMTextToImagePipeline":
        return ("vqvae", "bert", "tokenizer", "unet", "scheduler"), ()
    if name.startswith("LDM"):
        return ("vqvae", "unet", "scheduler"), ()
    if name.startswith("KandinskyV22"):
        prior, pictures = ("prior", "text_encoder", "tokenizer", "scheduler", "image_encoder"), "image_processor"
        if "Prior" in name:
            return prior[:4], (prior[4], pictures)
        decoder = ("movq", "unet", "scheduler")
        if "Combined" not in name:
            return decoder, ()
        return (*decoder, *(f"prior_{one}" for one in prior)), (f"prior_{pictures}",)
    if name.startswith("IF"):
        noised = ("image_noising_scheduler",) if "SuperResolution" in name else ()
        return ("unet", "scheduler", *noised), ("text_encoder", "tokenizer")
    if name == "StableDiffusionUpscalePipeline":
        return ("vae", "unet", "low_res_scheduler", "scheduler"), ("text_encoder", "tokenizer")
    if name.startswith("StableUnCLIP"):
        noised = ("image_normalizer", "image_noising_scheduler")
        prior = ("prior", "prior_text_encoder", "prior_tokenizer", "prior_scheduler")
        own = ("image_encoder", "feature_extractor") if "Img2Img" in name else prior
        return ("vae", "unet", "scheduler", *noised), ("text_encoder", "tokenizer", *own)
    if name.startswith("UnCLIP"):
        own = ("image_encoder", "feature_extractor") if "Variation" in name else ("prior", "prior_scheduler")
        networks = ("decoder", "text_proj", "super_res_first", "super_res_last")
        return (*own, "text_encoder", "tokenizer", *networks, "decoder_scheduler", "super_res_scheduler"), ()
    control = (name_of_control(name),) if "ControlNet" in name or "Adapter" in name else ()
    second = ("text_encoder_2", "tokenizer_2") if name.startswith("StableDiffusionXL") else ()
    return ("vae", "unet", "scheduler", *control), ("text_encoder", "tokenizer", *second)


def name_of_control(pipeline: str) -> str:
    """The component of a pipeline that reads hints, if it has one; a second one is in a folder with a number."""
    return "adapter" if "Adapter" in pipeline else "controlnet"


def control_folders(folder: Path, pipeline: str, classes: Mapping[str, str]) -> list[str]:
    """`controlnet`, `controlnet_1` ... or `adapter`, `adapter_1` ...

    diffusers' MultiAdapter strings the numbers of its folders together (`adapter_1_2`).
    """
    first = name_of_control(pipeline)
    folders = [first] if first in classes else []
    while folders:
        after = (f"{first}_{len(folders)}", f"{folders[-1]}_{len(folders)}")
        found = next((name for name in after if (folder / name).is_dir()), None)
        if found is None:
            break
        folders.append(found)
    return folders


def _no_class(key: str, entry: Any, where: str) -> SourceError:
    what = f"{key} is {shown(entry)}"
    return SourceError("unsupported", what, where=f"{where}: {key}", fits="a library and a class, or two nulls")


def as_class(config: Mapping[str, Any], cls: str, where: str) -> dict[str, Any]:
    """A network's config with the class named in the index.

    Raises:
        SourceError: `unsupported`: the config names another class.
    """
    own = config.get("_class_name")
    if own not in (None, cls):
        what = f"its class is {shown(own)}; model_index.json says {cls!r}"
        raise SourceError("unsupported", what, where=where, fits="the same class in both")
    return {**config, "_class_name": cls}


def check_tokenizer(cls: str | None, kind: str, folder: Path | None, where: str) -> None:
    """Refuse a tokenizer class that does not belong to this kind of text encoder.

    Raises:
        SourceError: `unsupported`.
    """
    known = _TOKENIZERS[kind]
    if cls is None or cls in known:
        return
    config = None if folder is None else folder / "tokenizer_config.json"
    if cls in _AS_WRITTEN and config is not None and config.is_file():
        data = read_json(config)
        if isinstance(data, dict) and data.get("tokenizer_class") in _AS_WRITTEN:
            return
    what = f"unknown tokenizer {cls!r} for a text encoder of kind {kind!r}"
    raise SourceError("unsupported", what, where=where, fits=", ".join(known))
