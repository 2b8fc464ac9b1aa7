"""GLIGEN in diffusers' layout: the gated attentions inside a U-Net as an adapter of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit_adapters.gligen import GLIGENConfig, gated_layers
from ldmkit_conditioners.clip_tower import ClipConfig
from ldmkit_denoisers.unet import UNet, UNetConfig

from ldmkit import ConditionerSpec, PartSpec, SourceError
from ldmkit.models.meta import on_meta
from ldmkit_checkpoints.diffusers.parts import Component
from ldmkit_checkpoints.diffusers.unet_fields import refuse
from ldmkit_checkpoints.keys import KeyMap, layers, renamed

PIPELINE = "StableDiffusionGLIGENPipeline"
NAME = "gligen"

_GATED = {
    "linear": "linear",
    "attn.to_out": "attn.to_out.0",
    "ff.proj": "ff.net.0.proj",
    "ff.out": "ff.net.2",
    "norm_1": "norm1",
    "norm_2": "norm2",
}
_ALONE = {
    "attn.to_q.weight": "attn.to_q.weight",
    "attn.to_k.weight": "attn.to_k.weight",
    "attn.to_v.weight": "attn.to_v.weight",
    "gate_attn": "alpha_attn",
    "gate_ff": "alpha_dense",
}


def without_gates(config: Mapping[str, Any], pipeline: str, where: str) -> dict[str, Any]:
    """config.json of the U-Net without its gated attentions.

    Raises:
        SourceError: `unsupported`: a network of another variant, or in a pipeline that does not use its gates.
    """
    kind, key = config.get("attention_type", "default"), f"{where}: attention_type"
    if pipeline != PIPELINE:
        if kind != "default":
            raise refuse("attention_type", kind, f"'default' in a {pipeline}; 'gated' in a {PIPELINE}")
        return dict(config)
    if kind == "gated-text-image":
        what = "GLIGEN with pictures in boxes (gated-text-image) is not supported"
        raise SourceError("unsupported", what, where=key, fits="attention_type 'gated': boxes with phrases")
    if kind != "gated":
        what = f"{PIPELINE} with a U-Net of attention_type {kind!r}"
        raise SourceError("unsupported", what, where=key, fits="'gated'")
    if config.get("in_channels", 4) != config.get("out_channels", 4):
        what = f"GLIGEN for inpainting (a U-Net with {config.get('in_channels')} input channels) is not supported"
        raise SourceError("unsupported", what, where=f"{where}: in_channels", fits="the generation variant, with 4")
    return {key: value for key, value in config.items() if key != "attention_type"}


def gligen_config(unet: UNetConfig, **options: Any) -> GLIGENConfig:
    """The adapter for all transformer blocks of a U-Net, as published: phrases as wide as the context."""
    with on_meta():
        gates = gated_layers(UNet(unet))
    wide = {"phrase_dim": unet.context_dim, "dim": unet.context_dim}
    return GLIGENConfig.of({"layers": gates, **wide, **options})


def gligen_component(unet: UNetConfig, keymap: KeyMap) -> Component:
    """The gates of a published U-Net, whose own keys are `keymap`."""
    config = gligen_config(unet)
    spec = PartSpec(type="gligen", config=config.model_dump(mode="json", exclude_defaults=True))
    return Component(spec, gligen_keys(config, keymap))


def gligen_keys(config: GLIGENConfig, unet: KeyMap) -> KeyMap:
    """Keys in a published layout of U-Nets, diffusers' or the original's, which is that of `unet`."""
    nulls = {"phrase": "positive", "code": "position"}
    keymap = {f"net.null_{own}": renamed(f"position_net.null_{theirs}_feature") for own, theirs in nulls.items()}
    keymap |= layers({f"net.mlp.{i}": f"position_net.linears.{i}" for i in (0, 2, 4)})
    for i, one in enumerate(config.layers):
        (norm,) = unet[f"{one.port.removeprefix('block.')}.norm_1.weight"].keys
        block = norm.removesuffix("norm1.weight")
        keymap |= layers({f"layers.{i}.{own}": f"{block}fuser.{theirs}" for own, theirs in _GATED.items()})
        keymap |= {f"layers.{i}.{own}": renamed(f"{block}fuser.{theirs}") for own, theirs in _ALONE.items()}
    return keymap


def layout_conditioner(text: ConditionerSpec, owner: str) -> ConditionerSpec:
    """The conditioner of the boxes, which reads phrases with the text encoder `owner`."""
    own = {key: value for key, value in text.config.items() if key in ClipConfig.model_fields}
    return ConditionerSpec(type="layout-phrases", config=own, slot=f"{NAME}.objects", shares=owner)
