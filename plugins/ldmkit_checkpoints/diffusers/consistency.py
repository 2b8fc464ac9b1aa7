"""diffusers' ConsistencyDecoderVAE: config.json and keys, read and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ldmkit_codecs.consistency import LATENT_DEVIATION, LATENT_MEAN, ConsistencyConfig
from ldmkit_denoisers.config import UNetConfig

from ldmkit import SourceError
from ldmkit_checkpoints.config_fields import checked, known_only
from ldmkit_checkpoints.diffusers.unet_config import unet_from_diffusers, unet_to_diffusers
from ldmkit_checkpoints.diffusers.unet_fields import ONLY, PLAIN
from ldmkit_checkpoints.diffusers.unet_keys import unet_diffusers
from ldmkit_checkpoints.diffusers.vae_config import (
    encoder_from_diffusers,
    encoder_to_diffusers,
    inexpressible,
    public,
    scaling,
)
from ldmkit_checkpoints.diffusers.vae_keys import encoder_diffusers_keys
from ldmkit_checkpoints.keys import KeyMap, prefixed

CLASS = "ConsistencyDecoderVAE"

_ENCODER: dict[str, Any] = {
    "act_fn": "silu",
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "in_channels": 3,
    "layers_per_block": 2,
    "norm_num_groups": 32,
}
_DECODER: dict[str, Any] = {
    "add_attention": False,
    "block_out_channels": (320, 640, 1024, 1024),
    "down_block_types": ("ResnetDownsampleBlock2D",) * 4,
    "downsample_padding": 1,
    "in_channels": 7,
    "layers_per_block": 3,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "num_train_timesteps": 1024,
    "out_channels": 6,
    "resnet_time_scale_shift": "scale_shift",
    "time_embedding_type": "learned",
    "up_block_types": ("ResnetUpsampleBlock2D",) * 4,
}
"""Fields of the encoder and of the decoder's UNet2DModel without their prefix, and the class's defaults."""
_OF_ATTENTION = ("attention_head_dim", "attn_norm_num_groups")
"""Fields without effect where nothing attends."""
_CODE: dict[str, Any] = {
    "timesteps": (1008, 512),
    "steps": 1024,
    "sigma_data": 0.5,
    "clamp": False,
    "latent_mean": LATENT_MEAN,
    "latent_deviation": LATENT_DEVIATION,
    "shift": 0.0,
    "quant_conv": True,
    "mid_attention": "vanilla",
    "resample_conv": True,
    "out_channels": 3,
    "force_upcast": False,
}
"""Fields of our config that are fixed in the class's code."""
_NAMES = {
    "scale": "scaling_factor",
    "in_channels": "encoder_in_channels",
    "widths": "encoder_block_out_channels",
    "blocks": "encoder_layers_per_block",
    "norm_groups": "encoder_norm_num_groups",
}
"""Field of our config -> name in the class's, for errors."""
_PLAIN = {"scaling_factor", "latent_channels", "sample_size", "encoder_double_z", "encoder_out_channels"}
_REGISTERED = {"block_out_channels", "force_upcast"}
"""Entries that the class writes itself, from other ones, and reads none of."""


def consistency_from_diffusers(config: Mapping[str, Any], where: str = "vae/config.json") -> dict[str, Any]:
    """The native config for a ConsistencyDecoderVAE's config.json; `sample_size` only decides on tiles.

    Raises:
        SourceError: unknown or unsupported entries.
    """
    config = public(config)
    sides = {f"encoder_{key}" for key in _ENCODER} | {f"decoder_{key}" for key in _DECODER}
    known_only(config, _PLAIN | _REGISTERED | sides, where)
    latent = config.get("latent_channels", 4)
    _check_latent(config, latent, where)
    native = _encoder(config, latent, where)
    native["scale"], native["shift"] = scaling({"scaling_factor": config.get("scaling_factor", 0.18215)}, where)
    native["unet"] = _unet(config, where).model_dump(mode="json", exclude_defaults=True)
    return checked(ConsistencyConfig, native, where, _NAMES)


def _check_latent(config: Mapping[str, Any], latent: Any, where: str) -> None:
    for key, fits in {
        "latent_channels": len(LATENT_MEAN),  # as many as its code has statistics of
        "encoder_out_channels": latent,
        "encoder_double_z": True,
        "decoder_in_channels": 3 + len(LATENT_MEAN),
    }.items():
        given = config.get(key, fits)
        if given is not fits and (given != fits or isinstance(given, bool)):
            raise SourceError("unsupported", f"{key} {given!r}", where=f"{where}.{key}", fits=repr(fits))


def _encoder(config: Mapping[str, Any], latent: int, where: str) -> dict[str, Any]:
    own = {key: config.get(f"encoder_{key}", default) for key, default in _ENCODER.items()}
    try:
        return encoder_from_diffusers({**own, "latent_channels": latent}, where)
    except SourceError as error:
        raise _under(error, "encoder", where, own) from None


def _unet(config: Mapping[str, Any], where: str) -> UNetConfig:
    own = {key: config.get(f"decoder_{key}", default) for key, default in _DECODER.items()}
    own = {key: list(value) if isinstance(value, tuple) else value for key, value in own.items()}
    rows, first = own["num_train_timesteps"], _CODE["timesteps"][0]
    if own["time_embedding_type"] == "learned" and type(rows) is int and rows <= first:
        what = f"a table of {rows} timesteps, and steps at {first} and lower"
        raise SourceError(
            "unsupported", what, where=f"{where}.decoder_num_train_timesteps", fits=f"{first + 1} or more"
        )
    if own["out_channels"] not in (3, 6):
        what = f"decoder_out_channels {own['out_channels']!r}"
        raise SourceError("unsupported", what, where=f"{where}.decoder_out_channels", fits="3, or 6 with a variance")
    try:
        return unet_from_diffusers({"_class_name": "UNet2DModel", **own}, latent_channels=3)
    except SourceError as error:
        raise _under(error, "decoder", where, own) from None


def _under(error: SourceError, side: str, where: str, own: Mapping[str, Any]) -> SourceError:
    """The error of one network's config, with the whole's names of its fields."""
    key = str(error.where or "").removeprefix(where).strip(".").split(".")[0].split("[")[0]
    names = "|".join(sorted(map(re.escape, own), key=len, reverse=True))
    error.what = re.sub(rf"(?<!\w)({names})(?!\w)", rf"{side}_\1", error.what)
    error.where = f"{where}.{side}_{key}" if key in own else where
    return error


def consistency_to_diffusers(config: Mapping[str, Any] | ConsistencyConfig) -> dict[str, Any]:
    """config.json of a ConsistencyDecoderVAE.

    Raises:
        SourceError: this class cannot express it.
    """
    c = ConsistencyConfig.of(config)
    for name, value in _CODE.items():
        if getattr(c, name) != value:
            raise inexpressible(f"{name} {getattr(c, name)!r}")
    if isinstance(c.scale, tuple) or c.latent_channels != c.z_channels:
        raise inexpressible("a scale per channel, or an embed_dim that differs from z_channels")
    encoder, network = encoder_to_diffusers(c), unet_to_diffusers(c.unet)
    if network.pop("_class_name") != "UNet2DModel":
        raise inexpressible("decoder with cross-attention")
    for key in network.keys() - _DECODER.keys():  # the class leaves them at their defaults
        fixed, quiet = PLAIN.get(key, ONLY.get(key, (None,))[0]), key in _OF_ATTENTION and not c.unet.attends
        if network[key] != fixed and not quiet:
            raise inexpressible(f"decoder with {key} {network[key]!r}")
    return {
        "_class_name": CLASS,
        "scaling_factor": c.scale,
        "latent_channels": c.latent_channels,
        "encoder_double_z": True,
        "encoder_out_channels": c.latent_channels,
        **{f"encoder_{key}": encoder[key] for key in _ENCODER},
        **{f"decoder_{key}": network[key] for key in _DECODER},
    }


def consistency_diffusers_keys(config: ConsistencyConfig, old_attention: bool = False) -> KeyMap:
    """Keys of ConsistencyDecoderVAE."""
    keymap = encoder_diffusers_keys(config, old_attention)
    return keymap | prefixed(unet_diffusers(config.unet), "decoder.", "decoder_unet.")
