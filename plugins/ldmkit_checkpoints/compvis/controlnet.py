"""cldm's ControlNet: config from the yaml's parameters, and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit_adapters.controlnet import ControlNetConfig
from ldmkit_denoisers.config import skip_widths

from ldmkit import SourceError
from ldmkit_checkpoints.compvis.unet_config import unet_from_compvis
from ldmkit_checkpoints.compvis.unet_keys import encoder_compvis
from ldmkit_checkpoints.compvis.yaml_config import params_of, section
from ldmkit_checkpoints.keys import KeyMap, layers


def controlnet_compvis(config: ControlNetConfig) -> KeyMap:
    """Keys of cldm's ControlNet, without the `control_model.` prefix."""
    hints = {f"hint.convs.{i}": f"input_hint_block.{2 * i}" for i in range(2 * len(config.hint_widths))}
    zeros = {f"zero.{i}": f"zero_convs.{i}.0" for i in range(len(skip_widths(config.unet)))}
    return encoder_compvis(config.unet) | layers({**hints, **zeros, "zero_mid": "middle_block_out.0"})


_STAGE = "cldm.cldm.ControlNet"


def control_of_yaml(params: Mapping[str, Any], where: str, **options: Any) -> ControlNetConfig:
    """The native config for `model.params` of a cldm yaml.

    Args:
        where: place of `params`, for errors.
        options: run-time fields that the yaml does not say.

    Raises:
        SourceError: `unsupported`: a yaml without cldm's ControlNet.
    """
    stage = section(params, "control_stage_config", where)
    if stage["target"] != _STAGE:
        what = f"the ControlNet is a {stage['target']!r}"
        raise SourceError("unsupported", what, where=f"{where}.control_stage_config.target", fits=_STAGE)
    for key in ("only_mid_control", "global_average_pooling"):
        if not isinstance(params.get(key), bool | None):
            raise SourceError("invalid", f"{key} is {params[key]!r}", where=f"{where}.{key}", fits="true or false")
    only_mid, pooled = bool(params.get("only_mid_control")), bool(params.get("global_average_pooling"))
    return controlnet_from_compvis(params_of(stage), only_mid=only_mid, pooled=pooled, **options)


def controlnet_from_compvis(params: Mapping[str, Any], **options: Any) -> ControlNetConfig:
    """The native config for `control_stage_config.params` of a cldm yaml; `options` are run-time fields.

    Raises:
        SourceError: as `unet_from_compvis`.
    """
    unet = {key: value for key, value in params.items() if key != "hint_channels"}
    unet["out_channels"] = params.get("in_channels")
    hint = int(params.get("hint_channels", 3))
    return ControlNetConfig.of({"unet": unet_from_compvis(unet), "hint_channels": hint, **options})
