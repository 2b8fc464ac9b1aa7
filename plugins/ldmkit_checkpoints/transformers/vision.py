"""transformers' CLIPVisionModelWithProjection: config.json, preprocessor_config.json and keys, read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ldmkit_conditioners.clip_image import ClipImageConfig
from ldmkit_conditioners.vision_tower import VisionConfig
from PIL import Image

from ldmkit import ConditionerSpec, LazyTensor, SourceError, suggest
from ldmkit_checkpoints.component_files import component_tensors, read_member_json
from ldmkit_checkpoints.keys import KeyMap, layer, renamed
from ldmkit_checkpoints.transformers.text_fields import NO_EFFECT, refuse
from ldmkit_checkpoints.transformers.text_keys import clip_block_keys

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
SUBFOLDERS = ("image_encoder", "feature_extractor")
"""Of a pipeline's folder: the encoder, and its preprocessor_config.json."""

_FIELDS = {
    "hidden_size": ("width", 768), "num_hidden_layers": ("layers", 12), "num_attention_heads": ("heads", 12),
    "intermediate_size": ("mlp", 3072), "hidden_act": ("activation", "quick_gelu"),
    "projection_dim": ("projection", 512), "image_size": ("edge", 224), "patch_size": ("patch", 32),
}  # fmt: skip
"""Field -> native name, the class's default."""

_ONLY: dict[str, tuple[Any, ...]] = {
    "layer_norm_eps": (1e-5, 0.00001), "num_channels": (3,), "hidden_act": ("quick_gelu", "gelu"),
    "model_type": ("clip_vision_model",),
}  # fmt: skip

_CLASSES = ("CLIPVisionModelWithProjection", "CLIPModel")


def vision_folder(folder: Path) -> Path | None:
    """The folder of the encoder itself: `folder`, or its `image_encoder`; None where neither is one."""
    for one in (folder, folder / SUBFOLDERS[0]):
        if (one / CONFIG).is_file() and "model_index.json" not in {path.name for path in one.iterdir()}:
            return one
    return None


def vision_from_hf(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of `VisionConfig` for a CLIPVisionConfig, or for a whole CLIP model's config.

    Raises:
        SourceError: an unknown field or an unsupported value; `unsupported`: another class of model.
    """
    if data.get("model_type") == "clip" and isinstance(data.get("vision_config"), Mapping):
        own = {"architectures": data.get("architectures"), "projection_dim": data.get("projection_dim", 512)}
        data = {**data["vision_config"], **own}
    names = data.get("architectures") or [_CLASSES[0]]
    if data.get("model_type", "clip_vision_model") != "clip_vision_model" or not set(names) & set(_CLASSES):
        what = f"it is a {', '.join(map(str, names))} ({data.get('model_type')})"
        raise SourceError("unsupported", what, where=where, fits=_CLASSES[0])
    known = {*_FIELDS, *_ONLY, *NO_EFFECT}
    for key, value in data.items():
        if key not in known:
            raise SourceError("unknown-key", f"unknown key {key!r}", where=f"{where}.{key}", fits=suggest(key, known))
        if key in _ONLY and value not in _ONLY[key]:
            raise refuse(key, value, where, " or ".join(map(str, _ONLY[key])))
    found = {native: data.get(key, default) for key, (native, default) in _FIELDS.items()}
    for key, (native, default) in _FIELDS.items():
        if type(found[native]) is not type(default):
            raise refuse(key, found[native], where, "a number" if isinstance(default, int) else "a name")
    return found


def preprocessing_from_hf(data: Mapping[str, Any] | None, edge: int, where: str) -> dict[str, Any]:
    """The fields of `Preprocessing` for a CLIPImageProcessor's config; None: as diffusers makes one for the encoder.

    Raises:
        SourceError: another processor, an unknown field or an unsupported value.
    """
    if data is None:
        return {"shortest": edge, "crop": [edge, edge]}
    name = data.get("image_processor_type", data.get("feature_extractor_type", "CLIPImageProcessor"))
    if name not in ("CLIPImageProcessor", "CLIPFeatureExtractor", "CLIPImageProcessorFast"):
        raise SourceError("unsupported", f"pictures are prepared by {name}", where=where, fits="CLIPImageProcessor")
    for key in data:
        if key not in _READ | _IGNORED:
            raise SourceError("unknown-key", f"unknown key {key!r}", where=f"{where}.{key}", fits=suggest(key, _READ))
    found: dict[str, Any] = {"shortest": None, "resize": None, "crop": None, "factor": None}
    if data.get("do_resize", True):
        found |= _resizing(data.get("size", {"shortest_edge": 224}), where)
        found["filter"] = _filter(data.get("resample", 3), where)
    if data.get("do_center_crop", True):
        found["crop"] = _pair(data.get("crop_size", 224), f"{where}.crop_size")
    if data.get("do_rescale", True):
        found["factor"] = data.get("rescale_factor", 1 / 255)
    if not data.get("do_normalize", True):
        return {**found, "mean": [0, 0, 0], "std": [1, 1, 1]}
    given = {"mean": data.get("image_mean"), "std": data.get("image_std")}
    return {**found, **{key: value for key, value in given.items() if value is not None}}


_READ = {
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor"),
    *("do_normalize", "image_mean", "image_std"),
}
_IGNORED = {
    *("image_processor_type", "feature_extractor_type", "processor_class", "do_convert_rgb", "_valid_processor_keys"),
    *("_processor_class", "data_format", "input_data_format", "device", "return_tensors", "disable_grouping"),
    *("default_to_square", "do_pad", "pad_size", "image_seq_length"),
}


def _resizing(size: Any, where: str) -> dict[str, Any]:
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        size = size["shortest_edge"]
    if isinstance(size, int):
        return {"shortest": size}
    return {"resize": _pair(size, f"{where}.size")}


def _pair(size: Any, where: str) -> list[int]:
    if isinstance(size, Mapping) and set(size) == {"height", "width"}:
        size = [size["height"], size["width"]]
    size = [size, size] if isinstance(size, int) else size
    if not isinstance(size, list) or len(size) != 2 or any(type(side) is not int for side in size):
        raise SourceError("unknown-parameter", f"got {size!r}", where=where, fits="a number, or height and width")
    return size


def _filter(number: Any, where: str) -> str:
    try:
        return Image.Resampling(number).name.lower()
    except ValueError:
        raise refuse("resample", number, where, "a number of Pillow's filters") from None


def vision_keys(config: VisionConfig, level: str = "vision_model.") -> KeyMap:
    """Keys of CLIPVisionModelWithProjection; `level` as for `vision_level`."""
    return {
        "tower.first": renamed(f"{level}embeddings.class_embedding"),
        "tower.patches.weight": renamed(f"{level}embeddings.patch_embedding.weight"),
        "tower.positions.weight": renamed(f"{level}embeddings.position_embedding.weight"),
        **layer("tower.norm_in", f"{level}pre_layrnorm"),
        **layer("tower.norm", f"{level}post_layernorm"),
        "tower.projection.weight": renamed("visual_projection.weight"),
        **clip_block_keys(config.layers, level),
    }


def vision_level(keys: Iterable[str]) -> str:
    """The prefix of the encoder's keys: `vision_model.`, twice in files of some versions, or empty."""
    found = [key for key in keys if key.endswith("embeddings.class_embedding")]
    return found[0].removesuffix("embeddings.class_embedding") if found else "vision_model."


def ignorable_vision_key(key: str) -> str | None:
    """Why a key that the encoder does not use may be left out; None: it may not."""
    if key.endswith("position_ids"):
        return "positions, which are counted"
    if key.startswith(("text_model.", "text_projection.")) or key == "logit_scale":
        return "the text encoder of a whole CLIP model"
    return None


def clip_image_config(
    data: Mapping[str, Any], pictures: Mapping[str, Any] | None, layer: str, where: str, beside: str
) -> ClipImageConfig:
    """The config of `clip-image` for an encoder's config.json and, if there is one, its preprocessor_config.json.

    Args:
        layer: which of its states the tokens are.
        where, beside: the two files, for errors.

    Raises:
        SourceError: an unknown field or an unsupported value.
    """
    config = vision_from_hf(data, where)
    made = preprocessing_from_hf(pictures, config["edge"], beside)
    return ClipImageConfig.of({**config, "pictures": made, "layer": layer}, where)


def open_vision(folder: Path, layer: str) -> tuple[ConditionerSpec, KeyMap, dict[str, LazyTensor]]:
    """The conditioner `clip-image` for an encoder's folder, its layout, and its tensors by published keys.

    Args:
        layer: which of its states the tokens are.

    Raises:
        SourceError: no such folder, or another model's.
    """
    own = vision_folder(folder) if folder.is_dir() else None
    if own is None:
        fits = f"a folder with {CONFIG} and model.safetensors of a {_CLASSES[0]}, or a pipeline's with {SUBFOLDERS[0]}"
        raise SourceError("no-encoder", "there is no image encoder in it", where=str(folder), fits=fits)
    where = f"{own}/{CONFIG}"
    beside = [own / PREPROCESSOR, own.parent / SUBFOLDERS[1] / PREPROCESSOR]
    beside = beside if own.name == SUBFOLDERS[0] else beside[:1]
    told = next((path for path in beside if path.is_file()), None)
    data = None if told is None else read_member_json(told.parent, told.name)
    read = clip_image_config(read_member_json(own, CONFIG), data, layer, where, str(told))
    tensors = component_tensors(own, own)
    spec = ConditionerSpec(type="clip-image", config=read.model_dump(mode="json", exclude_defaults=True))
    return spec, vision_keys(read, vision_level(tensors)), tensors
