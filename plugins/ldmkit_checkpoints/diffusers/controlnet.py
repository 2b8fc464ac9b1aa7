"""diffusers' ControlNetModel: config.json and keys, read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ldmkit_adapters.controlnet import ControlNetConfig
from ldmkit_denoisers.config import skip_widths

from ldmkit import SourceError
from ldmkit_checkpoints.diffusers.unet_config import unet_from_diffusers, unet_to_diffusers
from ldmkit_checkpoints.diffusers.unet_fields import refuse
from ldmkit_checkpoints.diffusers.unet_keys import encoder_diffusers
from ldmkit_checkpoints.keys import KeyMap, layers

_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "mid_block_scale_factor": (1,),
    "only_cross_attention": (False,),
    "mid_block_only_cross_attention": (None, False),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1,),
    "time_embedding_act_fn": (None,),
    "cross_attention_norm": (None,),
    "addition_embed_type": (None, "text_time"),
}
"""Fields of U-Nets, supported in this class at these values only."""

_ONLY_UNETS = frozenset(
    [
        *("mid_block_only_cross_attention", "resnet_skip_time_act", "resnet_out_scale_factor"),
        *("time_embedding_act_fn", "cross_attention_norm"),
    ]
)
"""Those of them that diffusers' class does not have."""

LATENTS = "_latent_channels"
"""Field that diffusers passes over: channels of the latents, of a network that reads further planes beside them."""

_MIRROR = {
    "DownBlock2D": "UpBlock2D",
    "AttnDownBlock2D": "AttnUpBlock2D",
    "CrossAttnDownBlock2D": "CrossAttnUpBlock2D",
    "ResnetDownsampleBlock2D": "ResnetUpsampleBlock2D",
}

_HINT_WIDTHS = (16, 32, 96, 256)
_OPTIONS: Mapping[str, tuple[str, Any, tuple[Any, ...]]] = {
    "controlnet_conditioning_channel_order": ("order", "rgb", ("rgb", "bgr")),
    "global_pool_conditions": ("pooled", False, (False, True)),
}
"""Field -> its native name, default and values."""


def controlnet_diffusers(config: ControlNetConfig, vector: str = "add_embedding") -> KeyMap:
    """Keys of diffusers' ControlNetModel; `vector` as for `unet_diffusers`."""
    zeros = {f"zero.{i}": f"controlnet_down_blocks.{i}" for i in range(len(skip_widths(config.unet)))}
    others = layers({**zeros, "zero_mid": "controlnet_mid_block"})
    return encoder_diffusers(config.unet, vector) | hint_keys(config.hint_widths) | others


def hint_keys(widths: Sequence[int]) -> KeyMap:
    """Keys of the hint's encoder, ControlNetConditioningEmbedding."""
    count, encoder = 2 * len(widths), "controlnet_cond_embedding"
    names = ["conv_in", *(f"blocks.{i}" for i in range(count - 2)), "conv_out"]
    return layers({f"hint.convs.{i}": f"{encoder}.{name}" for i, name in enumerate(names)})


def controlnet_from_diffusers(config: Mapping[str, Any], **options: Any) -> ControlNetConfig:
    """The native config for a ControlNetModel's config.json; `options` are run-time fields.

    Raises:
        SourceError: as `unet_from_diffusers`.
    """
    unet = {key: value for key, value in config.items() if not key.startswith("_")}
    own = {}
    for key, (native, default, values) in _OPTIONS.items():
        own[native] = unet.pop(key, default)
        if own[native] not in [value for value in values if type(value) is type(own[native])]:  # 0 is not False
            raise refuse(key, own[native], " or ".join(map(repr, values)))
    hint, widths = unet.pop("conditioning_channels", 3), unet.pop("conditioning_embedding_out_channels", _HINT_WIDTHS)
    for key, value in (("conditioning_channels", [hint]), ("conditioning_embedding_out_channels", widths)):
        if not isinstance(value, (list, tuple)) or not value or any(type(v) is not int or v < 1 for v in value):
            raise refuse(key, config[key], "positive integers")
    for key in ("cross_attention_dim", "layers_per_block"):  # this class has one value for all levels
        if isinstance(config.get(key), (list, tuple)):
            raise refuse(key, config[key], "an integer")
    if unet.get("class_embed_type") == "simple_projection":  # this class does not embed it
        raise refuse("class_embed_type", "simple_projection", "none, timestep, identity, projection")
    for key, only in _PLAIN.items():
        value = unet.get(key, only[0])
        if any(v not in only for v in (value if isinstance(value, (list, tuple)) and value else [value])):
            raise refuse(key, value, repr(only[0]))
    down = unet.get("down_block_types", ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"])
    if isinstance(down, (list, tuple)):
        unet["up_block_types"] = [_MIRROR.get(name, name) if isinstance(name, str) else name for name in reversed(down)]
    unet["in_channels"] = unet.get("in_channels", 4)
    unet["out_channels"] = config.get(LATENTS, unet["in_channels"])
    data = {"unet": unet_from_diffusers({"_class_name": "UNet2DConditionModel", **unet}), "hint_channels": hint}
    return ControlNetConfig.of({**data, "hint_widths": tuple(widths), **own, **options})


def controlnet_to_diffusers(
    config: ControlNetConfig, vector: str = "add_embedding", size_dim: int = 256
) -> dict[str, Any]:
    """config.json of a ControlNetModel; `vector` and `size_dim` as for `unet_to_diffusers`.

    Raises:
        SourceError: diffusers cannot express it.
    """
    written = unet_to_diffusers(config.unet, vector, size_dim)
    if written.pop("_class_name") != "UNet2DConditionModel" or not isinstance(written["layers_per_block"], int):
        raise SourceError("not-expressible", "diffusers has no ControlNet of this U-Net", where="unet")
    for key in ("out_channels", "up_block_types", "dropout", "time_embedding_dim"):
        written.pop(key)
    for key, only in _PLAIN.items():
        value = written.get(key, only[0])
        if any(v not in only for v in (value if isinstance(value, list) else [value])):
            raise SourceError("not-expressible", f"diffusers has no ControlNet with {key} {value!r}", where="unet")
        if key in _ONLY_UNETS:
            written.pop(key, None)
    planes = {} if config.unet.channels == written["in_channels"] else {LATENTS: config.unet.channels}
    return {
        "_class_name": "ControlNetModel",
        **planes,
        **written,
        "conditioning_channels": config.hint_channels,
        "conditioning_embedding_out_channels": list(config.hint_widths),
        **{key: getattr(config, native) for key, (native, _, _) in _OPTIONS.items()},
    }
