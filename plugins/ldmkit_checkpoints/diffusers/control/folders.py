"""diffusers' classes of networks that read hints, from their config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ldmkit_checkpoints.diffusers.control.t2i import t2i_component
from ldmkit_checkpoints.diffusers.control.union import union_component
from ldmkit_checkpoints.diffusers.control.xs import xs_component
from ldmkit_checkpoints.diffusers.parts import Component, controlnet_component

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Reader: TypeAlias = Callable[[Mapping[str, Any], Shapes, str], Component]

READERS: dict[str, tuple[str, Reader]] = {
    "ControlNetModel": ("control", lambda config, shapes, where: controlnet_component(config, "length")),
    "ControlNetUnionModel": ("union", union_component),
    "ControlNetXSAdapter": ("xs", xs_component),
    "T2IAdapter": ("t2i", t2i_component),
}
"""Class -> the adapter's name, and what reads its config, the shapes of its tensors beside it."""
