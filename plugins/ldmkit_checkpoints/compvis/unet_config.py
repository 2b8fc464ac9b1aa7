"""U-Net config from a CompVis, ADM or sgm yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit_denoisers.config import UNetConfig

from ldmkit import SourceError, suggest

_NO_EFFECT = {
    *(
        "image_size",
        "use_checkpoint",
        "use_fp16",
        "legacy",
        "spatial_transformer_attn_type",
        "use_fairscale_checkpoint",
    ),
    *("offload_to_cpu", "use_spatial_transformer", "use_new_attention_order", "num_heads_upsample"),
    *("disable_middle_self_attn", "disable_self_attentions", "num_attention_blocks", "n_embed", "dims", "use_bf16"),
}
_KNOWN = {
    *("in_channels", "out_channels", "model_channels", "attention_resolutions", "num_res_blocks", "channel_mult"),
    *("num_heads", "num_head_channels", "transformer_depth", "transformer_depth_middle", "context_dim"),
    *("use_linear_in_transformer", "use_scale_shift_norm", "resblock_updown", "conv_resample", "dropout"),
    *("num_classes", "adm_in_channels"),
}
"""Keys of the yaml; those of `_NO_EFFECT` have none, or `_refuse` refuses them at other values."""


def unet_from_compvis(params: Mapping[str, Any], latent_channels: int | None = None) -> UNetConfig:
    """The native config for `unet_config.params` (sgm: `network_config.params`) of an original yaml.

    Args:
        latent_channels: channels of x, the other input channels are the plane; None: the smaller of in and out.

    Raises:
        SourceError: an unknown key, or something this U-Net does not support.
    """
    _refuse(params)
    width, mult = int(_need(params, "model_channels")), tuple(params.get("channel_mult") or (1, 2, 4, 8))
    if mult[0] != 1:
        raise SourceError("unsupported", f"channel_mult starts with {mult[0]}", where="channel_mult", fits="1")
    levels = len(mult)
    kind = "cross" if params.get("use_spatial_transformer") or params.get("context_dim") is not None else "self"
    where = set(_listed(_need(params, "attention_resolutions")))
    depth = _per_level(params.get("transformer_depth", 1), levels, "transformer_depth")
    inputs, outputs = int(_need(params, "in_channels")), int(_need(params, "out_channels"))
    heads, head_dim = params.get("num_heads", -1), params.get("num_head_channels", -1)
    vector, vector_dim = _vector(params)
    return UNetConfig(
        channels=min(inputs, outputs) if latent_channels is None else latent_channels,
        in_channels=inputs,
        out_channels=outputs,
        widths=tuple(width * m for m in mult),
        blocks=_per_level(_need(params, "num_res_blocks"), levels, "num_res_blocks"),
        attention=tuple(kind if 2**level in where else "none" for level in range(levels)),
        depth=tuple(d if 2**level in where else 1 for level, d in enumerate(depth)),
        mid=kind,
        mid_depth=params.get("transformer_depth_middle") or depth[-1],
        heads=None if head_dim != -1 else heads,
        head_dim=None if head_dim == -1 else head_dim,
        context_dim=_context_dim(params),
        linear_projections=bool(params.get("use_linear_in_transformer", False)),
        scale_shift=bool(params.get("use_scale_shift_norm", False)),
        residual_resample=bool(params.get("resblock_updown", False)),
        resample_conv=bool(params.get("conv_resample", True)),
        dropout=float(params.get("dropout", 0.0)),
        vector=vector,
        vector_dim=vector_dim,
    )


def compvis_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `unet_compvis` from the yaml."""
    return {"new_attention_order": bool(params.get("use_new_attention_order", False))}


def _refuse(params: Mapping[str, Any]) -> None:
    for key in params:
        if key not in _KNOWN | _NO_EFFECT:
            raise SourceError(
                "unknown-key", f"unknown U-Net key {key!r}", where=key, fits=suggest(key, _KNOWN | _NO_EFFECT)
            )
    harmless = {
        "disable_middle_self_attn": (False, None),
        "disable_self_attentions": (None,),
        "num_attention_blocks": (None,),
        "n_embed": (None,),
        "dims": (2,),
        "num_heads_upsample": (-1, params.get("num_heads", -1)),
    }
    for key, allowed in harmless.items():
        if key in params and params[key] not in allowed:
            what = f"{key} = {params[key]!r} is not supported"
            raise SourceError("unsupported", what, where=key, fits=f"{allowed[0]!r}")
    if params.get("num_heads", -1) == -1 and params.get("num_head_channels", -1) == -1:
        raise SourceError("missing-key", "neither num_heads nor num_head_channels is given", where="num_heads")
    if params.get("use_spatial_transformer") and params.get("context_dim") is None:
        raise SourceError("missing-key", "a spatial transformer needs context_dim", where="context_dim")


def _need(params: Mapping[str, Any], key: str) -> Any:
    if params.get(key) is None:
        raise SourceError("missing-key", f"the U-Net's {key} is not given", where=key)
    return params[key]


def _listed(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else (int(value),)


def _per_level(value: Any, levels: int, key: str) -> tuple[int, ...]:
    values = _listed(value)
    values = values * levels if not isinstance(value, (list, tuple)) else values
    if len(values) != levels:
        raise SourceError("level-count", f"{key} has {len(values)} entries for {levels} levels", where=key)
    return values


def _context_dim(params: Mapping[str, Any]) -> int | None:
    value = params.get("context_dim")
    if not isinstance(value, (list, tuple)):
        return value
    if len(set(value)) != 1:
        raise SourceError("unsupported", f"context_dim differs between blocks: {list(value)}", where="context_dim")
    return int(value[0])


def _vector(params: Mapping[str, Any]) -> tuple[Any, int | None]:
    classes, width = params.get("num_classes"), params.get("adm_in_channels")
    if classes is None:
        if width is not None:
            raise SourceError("unsupported", "adm_in_channels without num_classes", where="adm_in_channels")
        return "none", None
    if isinstance(classes, int) and not isinstance(classes, bool):
        return "table", classes
    if classes == "sequential":
        return "mlp", int(_need(params, "adm_in_channels"))
    if classes == "continuous":
        return "linear", 1
    if classes == "timestep":
        return "timestep", None
    raise SourceError("unsupported", f"num_classes = {classes!r}", where="num_classes", fits="a number or 'sequential'")
