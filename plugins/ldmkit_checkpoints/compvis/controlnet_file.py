"""A ControlNet alone in a file with cldm's keys, with or without their prefix in a complete model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit_adapters.controlnet import ControlNetConfig

from ldmkit import LazyTensor, PartSpec
from ldmkit_checkpoints.compvis.controlnet import control_of_yaml, controlnet_compvis
from ldmkit_checkpoints.compvis.ldm import PARAMETERS
from ldmkit_checkpoints.compvis.yaml_config import params_of, section
from ldmkit_checkpoints.conditioners import hint_of
from ldmkit_checkpoints.config_fields import known_only
from ldmkit_checkpoints.diffusers.control.inferred import hint_widths, unet_of_compvis
from ldmkit_checkpoints.diffusers.control.source import AdapterFile
from ldmkit_checkpoints.diffusers.parts import Component
from ldmkit_checkpoints.keys import prefixed

PREFIX = "control_model."
_FIRST = "input_hint_block.0.weight"

_SHUFFLE = (
    "it is named Shuffle, and ControlNet 1.1 Shuffle averages its residuals over the map, which its keys do not tell: "
    "it is read as an ordinary ControlNet (put its yaml beside it, or ask for pooled=True)"
)


def is_controlnet(tensors: Mapping[str, LazyTensor]) -> bool:
    """Whether a file holds a ControlNet without the U-Net that it controls."""
    alone = not any(key.startswith("model.diffusion_model.") for key in tensors)
    return alone and (_FIRST in tensors or PREFIX + _FIRST in tensors)


class ControlNetFile(AdapterFile):
    """The source for a ControlNet file; the adapter is named `control`.

    Args:
        tensors: lazy tensors by the file's keys.
        config: the parsed yaml of the complete model; None: infer the network from the keys.
        origin: the file; `config_origin`: the yaml; both for errors.

    Raises:
        SourceError: keys of an unknown network, or a yaml without a ControlNet.
    """

    takes = frozenset({"config"})

    def __init__(
        self,
        tensors: Mapping[str, LazyTensor],
        config: Mapping[str, Any] | None,
        origin: str,
        config_origin: str = "config",
    ) -> None:
        prefix = PREFIX if PREFIX + _FIRST in tensors else ""
        bare = {key.removeprefix(prefix): tensor.shape for key, tensor in tensors.items() if key.startswith(prefix)}
        if config is None:
            control = infer_controlnet(bare, origin)
        else:
            model, where = params_of(section(config, "model", config_origin)), f"{config_origin}: model.params"
            known_only(model, PARAMETERS, where)
            control = control_of_yaml(model, where, hint_widths=hint_widths(bare, "compvis"))
        spec = PartSpec(type="controlnet", config=control.model_dump(mode="json", exclude_defaults=True))
        keymap = prefixed(controlnet_compvis(control), foreign=prefix)
        super().__init__(tensors, "control", Component(spec, keymap, slots=hint_of(control.hint_channels)), origin)
        if config is None:
            self.report.notes.append("config from its keys: ControlNet")
            if "shuffle" in Path(origin).name.lower():
                warnings.warn(f"{origin}: {_SHUFFLE}", stacklevel=2)


def infer_controlnet(shapes: Mapping[str, tuple[int, ...]], where: str) -> ControlNetConfig:
    """The native config of cldm's keys and shapes, for Stable Diffusion 1, 2 and XL; see `unet_of_compvis`.

    Raises:
        SourceError: `config-needed` for another network.
    """
    unet, hint = unet_of_compvis(shapes, where), shapes[_FIRST]
    return ControlNetConfig.of({"unet": unet, "hint_channels": hint[1], "hint_widths": hint_widths(shapes, "compvis")})
