"""diffusers' AutoencoderTiny: config.json and keys, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit_codecs.tiny import TinyConfig

from ldmkit import SourceError
from ldmkit_checkpoints.config_fields import checked, known_only, numbers
from ldmkit_checkpoints.diffusers.vae_config import NAMES, inexpressible, public, scaling
from ldmkit_checkpoints.keys import KeyMap
from ldmkit_checkpoints.tiny.keys import decoder_layers, encoder_layers


def tiny_diffusers_keys(config: TinyConfig) -> KeyMap:
    """Keys of AutoencoderTiny.

    Raises:
        SourceError: a config with pooled branches, which this class does not have.
    """
    if config.encoder_pool or config.decoder_pool:
        raise inexpressible("pooled middle blocks")
    return {**encoder_layers(config, "encoder.layers."), **decoder_layers(config, "decoder.layers.", skipped=1)}


_KNOWN = {
    *("in_channels", "out_channels", "encoder_block_out_channels", "decoder_block_out_channels", "act_fn"),
    *("upsample_fn", "latent_channels", "upsampling_scaling_factor", "num_encoder_blocks", "num_decoder_blocks"),
    *("latent_magnitude", "latent_shift", "force_upcast", "scaling_factor", "shift_factor", "block_out_channels"),
}

_FIXED = {"act_fn": "relu", "upsample_fn": "nearest", "upsampling_scaling_factor": 2}


def tiny_from_diffusers(config: Mapping[str, Any], where: str = "vae/config.json") -> dict[str, Any]:
    """The native config for an AutoencoderTiny; its latent_magnitude and latent_shift only affect thumbnails.

    Raises:
        SourceError: unknown or unsupported entries.
    """
    config = public(config)
    known_only(config, _KNOWN, where)
    for key, fits in _FIXED.items():
        if config.get(key, fits) != fits:
            raise SourceError("unsupported", f"{key} {config[key]!r}", where=f"{where}.{key}", fits=repr(fits))
    sides = ("encoder_block_out_channels", "decoder_block_out_channels")
    widths = {width for side in sides for width in numbers(config.get(side, (64,) * 4), f"{where}.{side}")}
    if len(widths) != 1:
        what = f"{' and '.join(sides)} name widths {sorted(widths)} in one model"
        raise SourceError("unsupported", what, where=where, fits="one width")
    for side, default in (("encoder", (1, 3, 3, 3)), ("decoder", (3, 3, 3, 1))):
        blocks = numbers(config.get(f"num_{side}_blocks", default), f"{where}.num_{side}_blocks")
        stages = len(config.get(f"{side}_block_out_channels", (64,) * 4))
        if len(blocks) != stages:
            what = f"num_{side}_blocks has {len(blocks)} entries, {side}_block_out_channels {stages}"
            raise SourceError("invalid", what, where=where, fits="one entry per stage in both")
    scale, shift = scaling(config, where, 1.0)
    native = {
        "in_channels": config.get("in_channels", 3),
        "out_channels": config.get("out_channels", 3),
        "width": widths.pop(),
        "encoder_blocks": config.get("num_encoder_blocks", (1, 3, 3, 3)),
        "decoder_blocks": config.get("num_decoder_blocks", (3, 3, 3, 1)),
        "latent_channels": config.get("latent_channels", 4),
        "scale": scale,
        "shift": shift,
        "force_upcast": bool(config.get("force_upcast", False)),
    }
    return checked(TinyConfig, native, where, NAMES)


def tiny_to_diffusers(config: Mapping[str, Any] | TinyConfig) -> dict[str, Any]:
    """config.json of an AutoencoderTiny.

    Raises:
        SourceError: this class cannot express it.
    """
    c = TinyConfig.of(config)
    if c.encoder_pool or c.decoder_pool:
        raise inexpressible("pooled middle blocks")
    if isinstance(c.scale, tuple) or isinstance(c.shift, tuple):
        raise inexpressible("scale or shift per channel")
    return {
        "_class_name": "AutoencoderTiny",
        "in_channels": c.in_channels,
        "out_channels": c.out_channels,
        "encoder_block_out_channels": [c.width] * len(c.encoder_blocks),
        "decoder_block_out_channels": [c.width] * len(c.decoder_blocks),
        "num_encoder_blocks": list(c.encoder_blocks),
        "num_decoder_blocks": list(c.decoder_blocks),
        "latent_channels": c.latent_channels,
        "scaling_factor": c.scale,
        "shift_factor": c.shift,
        "force_upcast": c.force_upcast,
        **_FIXED,
    }
