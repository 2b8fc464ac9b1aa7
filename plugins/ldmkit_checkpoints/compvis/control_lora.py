"""Control-LoRA: a ControlNet as low-rank changes of the U-Net that it is attached to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from ldmkit_adapters.controlnet import ControlNetConfig
from ldmkit_denoisers.encoder import Encoder
from torch import Tensor, nn

from ldmkit import LazyTensor, PartSpec, Source, SourceError
from ldmkit.models.composed import Composed
from ldmkit_checkpoints.compvis.checkpoint import is_checkpoint, open_checkpoint
from ldmkit_checkpoints.compvis.controlnet import controlnet_compvis
from ldmkit_checkpoints.conditioners import hint_of
from ldmkit_checkpoints.diffusers.control.files import MARK
from ldmkit_checkpoints.diffusers.control.inferred import hint_widths
from ldmkit_checkpoints.diffusers.control.source import AdapterFile
from ldmkit_checkpoints.diffusers.parts import Component
from ldmkit_checkpoints.keys import KeyMap
from ldmkit_checkpoints.unsupported.files import refuse_unsupported_file

_FIRST = "input_hint_block.0.weight"
_OWN = ("input_hint_block.", "zero_convs.", "middle_block_out.")
"""Beginnings of keys of what the U-Net has not."""

_FITS = "a file that was made for this model"


def open_control_lora(path: Path, pipeline: Composed) -> Source | None:
    """The reader for a Control-LoRA's file; None where it is none.

    Raises:
        SourceError: it is one, and does not fit the pipeline's U-Net.
    """
    if not is_checkpoint(path):
        return None
    refuse_unsupported_file(path)
    tensors = open_checkpoint(path)[0]
    return ControlLora(tensors, pipeline, str(path)) if MARK in tensors else None


class ControlLora(AdapterFile):
    """The source for a ControlNet whose weights are those of the pipeline's U-Net, changed.

    W + up down for a layer with both; a tensor of its own in the place of the U-Net's; else the U-Net's. The adapter is
    an ordinary ControlNet with weights of its own, and is saved as one.

    Args:
        tensors: lazy tensors by the file's keys, which are cldm's, `<layer>.up` and `<layer>.down`.
        pipeline: that it is attached to.
        origin: the file, for errors.

    Raises:
        SourceError: `other-base`: it was made for another U-Net, with both shapes; `half-a-pair`.
    """

    def __init__(self, tensors: Mapping[str, LazyTensor], pipeline: Composed, origin: str) -> None:
        unet = pipeline.denoiser
        if unet.placed is not None or not isinstance(unet, Encoder):
            what = "a Control-LoRA is made of the U-Net's weights, which are " + (
                "elsewhere" if isinstance(unet, Encoder) else f"not in a {type(unet).__name__}"
            )
            raise SourceError("other-base", what, where=origin, fits="a pipeline with a U-Net, before it is placed")
        shapes = {key: tensor.shape for key, tensor in tensors.items()}
        if len(shapes.get(_FIRST, ())) != 4:
            raise SourceError("other-base", f"there is no {_FIRST!r} in it", where=origin, fits="a complete file")
        data = {"unet": unet.unet, "hint_channels": shapes[_FIRST][1], "hint_widths": hint_widths(shapes, "compvis")}
        config = ControlNetConfig.of(data)
        spec = PartSpec(type="controlnet", config=config.model_dump(mode="json", exclude_defaults=True))
        keymap = controlnet_compvis(config)
        base = _published(unet, keymap)
        merged = {key: tensor for key, tensor in tensors.items() if key.startswith(_OWN)}
        merged |= {key: _changed(key, tensor, tensors, origin) for key, tensor in base.items()}
        known = {*merged, *(f"{key.removesuffix('.weight')}.{end}" for key in base for end in ("up", "down")), MARK}
        for key in tensors:
            if key not in known:
                what = f"the key {key!r} names no layer of this pipeline's U-Net"
                raise SourceError("other-base", what, where=origin, fits=_FITS)
        super().__init__(merged, "control", Component(spec, keymap, slots=hint_of(config.hint_channels)), origin)
        changed = sum(key.endswith(".up") for key in tensors)
        self.report.notes.append(f"{changed} layers of the U-Net are changed by low-rank products")


def _published(unet: nn.Module, keymap: KeyMap) -> dict[str, Tensor]:
    """The U-Net's tensors of the first half under cldm's keys."""
    own = unet.state_dict()
    found: dict[str, Tensor] = {}
    for native, entry in keymap.items():
        if native in own:
            found |= dict(zip(entry.keys, entry.write(own[native].detach()), strict=True))
    return found


def _changed(key: str, base: Tensor, tensors: Mapping[str, LazyTensor], origin: str) -> LazyTensor:
    """What the file makes of one tensor of the U-Net."""
    stem = key.removesuffix(".weight")
    up, down = (tensors.get(f"{stem}.{end}") if key.endswith(".weight") else None for end in ("up", "down"))
    if (up is None) != (down is None):
        there = f"{stem}.{'down' if up is None else 'up'}"
        raise SourceError("half-a-pair", f"{there!r} stands alone", where=origin, fits="both up and down")
    if key in tensors:
        if tensors[key].shape != tuple(base.shape):
            raise _other(key, tensors[key].shape, base, origin)
        return tensors[key]
    if up is None or down is None:
        return LazyTensor(tuple(base.shape), base.dtype, lambda copy: base.clone() if copy else base)
    rank = up.shape[1] if len(up.shape) > 1 else 0
    change = (up.shape[0], *down.shape[1:])
    fits = rank and down.shape[0] == rank and math.prod(change) == base.numel() and change[0] == base.shape[0]
    if not fits:
        raise _other(f"{stem}.up and .down", change, base, origin)

    def read(copy: bool) -> Tensor:
        wide = torch.promote_types(base.dtype, torch.float32)
        product = up.read(True).flatten(1).to(wide) @ down.read(True).flatten(1).to(wide)
        return (base.to(wide) + product.reshape(base.shape).to(base.device)).to(base.dtype)

    return LazyTensor(tuple(base.shape), base.dtype, read)


def _other(key: str, shape: tuple[int, ...], base: Tensor, origin: str) -> SourceError:
    what = f"{key!r} is for a weight of {list(shape)}, the pipeline's U-Net has {list(base.shape)} there"
    return SourceError("other-base", what, where=origin, fits=_FITS)
