"""GLIGEN's gates alone in a file, with the original's keys: for a Stable Diffusion of any fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ldmkit_conditioners.clip_text import ClipText
from ldmkit_denoisers.unet import UNet

from ldmkit import ConditionerSpec, LazyTensor, PartSpec, SourceError
from ldmkit.models.compose import part_spec
from ldmkit.models.composed import Composed
from ldmkit.models.source import SlotPart
from ldmkit.models.weights import open_safetensors
from ldmkit_checkpoints.compvis.unet_keys import unet_compvis
from ldmkit_checkpoints.diffusers.control.source import AdapterFile
from ldmkit_checkpoints.diffusers.gligen import NAME, gligen_config, gligen_keys, layout_conditioner
from ldmkit_checkpoints.diffusers.parts import Component
from ldmkit_checkpoints.diffusers.unet_keys import unet_diffusers
from ldmkit_checkpoints.torchfile.state_dict import open_state_dict

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_SIGN = "position_net.null_position_feature"


class GligenFile(AdapterFile):
    """The source for a file of gates, in the original's or diffusers' names of the layers; the adapter is `gligen`.

    Raises:
        SourceError: `other-base`: the pipeline has no U-Net, or no text encoder; `unsupported`: another variant.
    """

    def __init__(self, tensors: Mapping[str, LazyTensor], pipeline: Composed, origin: str) -> None:
        unet = pipeline.denoiser
        if any(key.startswith("position_net.linears_") for key in tensors):
            what = "it is GLIGEN with pictures in boxes, or with key points, which is not supported"
            raise SourceError("unsupported", what, where=origin, fits="GLIGEN of boxes with phrases")
        texts = {name: part for name, part in pipeline.conditioners.items() if isinstance(part, ClipText)}
        if not isinstance(unet, UNet) or unet.config.context_dim is None or not texts:
            what = "GLIGEN is for a U-Net with cross-attention, and a CLIP text encoder that reads the phrases"
            raise SourceError("other-base", what, where=origin, fits="a Stable Diffusion 1 pipeline")
        owner, text = next(iter(texts.items()))
        config = gligen_config(unet.config)
        spec = ConditionerSpec(**part_spec("conditioner", text).model_dump())
        layout = layout_conditioner(spec, owner).model_copy(update={"slot": None, "input": "layout"})
        part = PartSpec(type="gligen", config=config.model_dump(mode="json", exclude_defaults=True))
        diffusers = any(key.startswith(("down_blocks.", "up_blocks.", "mid_block.")) for key in tensors)
        names = unet_diffusers(unet.config) if diffusers else unet_compvis(unet.config)
        slots = {"objects": SlotPart(layout)}
        super().__init__(tensors, NAME, Component(part, gligen_keys(config, names), slots=slots), origin)


def open_gligen(path: Path, pipeline: Composed) -> GligenFile | None:
    """The reader for a file of gates; None for other files."""
    if not path.is_file() or path.suffix not in _SUFFIXES:
        return None
    tensors = open_safetensors(path) if path.suffix == ".safetensors" else open_state_dict(path)[0]
    gated = any(".fuser." in key for key in tensors) and _SIGN in tensors
    return GligenFile(tensors, pipeline, str(path)) if gated else None
