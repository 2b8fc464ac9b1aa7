"""Export of single parts as folders for diffusers' from_pretrained."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from ldmkit_adapters.controlnet import ControlNet

from ldmkit import Codec, InputError, Pipeline, part_spec, suggest, write_json
from ldmkit.models.saving import check_folder, replacing_folder
from ldmkit.models.source import is_native, is_part
from ldmkit.models.weights import write_safetensors
from ldmkit_checkpoints.diffusers.controlnet import controlnet_diffusers, controlnet_to_diffusers
from ldmkit_checkpoints.diffusers.export import (
    ExportWarning,
    codec_component,
    published,
    scheduler_component,
    size_width,
    unet_component,
)
from ldmkit_checkpoints.diffusers.folding import standard

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
CONTROLNET_FILES = (CONFIG, frozenset({WEIGHTS.removesuffix(".safetensors")}))
"""What `save_diffusers_controlnet` writes, as `check_folder` takes it."""

FOLDERS = {"codec": "vae", "denoiser": "unet", "process": "scheduler"}
"""Part -> name of its folder."""


def save_diffusers_codec(codec: Codec, folder: str | Path) -> Path:
    """Write a codec as AutoencoderKL, VQModel or AutoencoderTiny.

    Raises:
        SourceError: `not-expressible`, `inexpressible`: diffusers has no such codec or option.
        InputError: `folder-taken`, `no-folder`.
        RunError: `cannot-write`.
    """
    target = _checked(folder)
    made = standard(codec)
    config, keymap = codec_component(part_spec("codec", codec).type, made)
    with replacing_folder(target) as building:
        write_json(building / "config.json", config)
        write_safetensors(building / WEIGHTS, published(made.state_dict(), keymap))
    return target


def save_diffusers_controlnet(control: ControlNet, pipeline: Pipeline, folder: Path) -> None:
    """Write a ControlNet of a pipeline as ControlNetModel; an older one in the folder is replaced.

    Raises:
        SourceError: `not-expressible`, `inexpressible`: diffusers has no ControlNet of such a U-Net.
        InputError: `folder-taken`, `no-folder`.
        RunError: `cannot-write`.
    """
    check_folder(folder, *CONTROLNET_FILES)
    config = controlnet_to_diffusers(control.config, size_dim=size_width(pipeline.spec.conditioners))
    with replacing_folder(folder) as building:
        write_json(building / CONFIG, config)
        write_safetensors(building / WEIGHTS, published(control.state_dict(), controlnet_diffusers(control.config)))


def save_diffusers_parts(pipeline: Pipeline, folder: str | Path, parts: Sequence[str]) -> Path:
    """Write parts of a pipeline, each in its own folder: `vae`, `unet`, `scheduler`.

    Args:
        parts: any of `codec`, `denoiser` and `process`.

    Raises:
        SourceError, InputError, RunError: as `save_diffusers_codec`; the part is named. `unknown-part`.
    """
    for part in parts:
        if part not in FOLDERS:
            what = f"a part {part!r} cannot be written separately"
            raise InputError("unknown-part", what, where="parts", fits=suggest(part, FOLDERS))
    if not parts:
        raise InputError("unknown-part", "parts is empty", where="parts", fits=", ".join(FOLDERS))
    target = _checked(folder)
    configs, weights, lost = {}, {}, ""
    if "codec" in parts:
        codec = standard(pipeline.codec)
        configs["codec"], keymap = codec_component(pipeline.spec.codec.type, codec)
        weights["codec"] = (codec, keymap)
    if "denoiser" in parts:
        configs["denoiser"], keymap = unet_component(pipeline)
        weights["denoiser"] = (pipeline.denoiser, keymap)
    if "process" in parts:
        found = scheduler_component(pipeline.spec)
        configs["process"], lost = found.config, found.lost
    with replacing_folder(target) as building:
        for part, config in configs.items():
            inner = building / FOLDERS[part]
            inner.mkdir()
            write_json(inner / ("scheduler_config.json" if part == "process" else "config.json"), config)
            if part in weights:
                module, keymap = weights[part]
                write_safetensors(inner / WEIGHTS, published(module.state_dict(), keymap))
    if lost:
        warnings.warn(lost, ExportWarning, stacklevel=2)
    return target


def _checked(folder: str | Path) -> Path:
    target = Path(folder)
    check_folder(target)
    if target.is_dir() and (is_native(target) or is_part(target)):
        raise InputError("folder-taken", "it holds a saved model", where=str(target), fits="a new or empty folder")
    return target
