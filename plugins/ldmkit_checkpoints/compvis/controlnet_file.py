"""A ControlNet alone in a file with cldm's keys, with or without their prefix in a complete model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit import LazyTensor, PartSpec, PipelineSpec, Source, SourceError
from ldmkit.models.source import SlotPart, adapter_only
from ldmkit_checkpoints.compvis.controlnet import control_of_yaml, controlnet_compvis, controlnet_from_compvis
from ldmkit_checkpoints.compvis.ldm import PARAMETERS
from ldmkit_checkpoints.compvis.yaml_config import params_of, section
from ldmkit_checkpoints.conditioners import hint_of
from ldmkit_checkpoints.config_fields import known_only
from ldmkit_checkpoints.inventory import Inventory
from ldmkit_checkpoints.keys import prefixed

PREFIX = "control_model."
PART = "adapters.control"
_FIRST = "input_hint_block.0.weight"

_SHUFFLE = (
    "it is named Shuffle, and ControlNet 1.1 Shuffle averages its residuals over the map, which its keys do not tell: "
    "it is read as an ordinary ControlNet (put its yaml beside it)"
)

_HEADS = 8
_HEAD_CHANNELS = 64


def is_controlnet(tensors: Mapping[str, LazyTensor]) -> bool:
    """Whether a file holds a ControlNet without the U-Net that it controls."""
    alone = not any(key.startswith("model.diffusion_model.") for key in tensors)
    return alone and (_FIRST in tensors or PREFIX + _FIRST in tensors)


class ControlNetFile(Source):
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
        super().__init__(origin)
        self.inventory = Inventory(tensors, self.report, origin)
        prefix = PREFIX if PREFIX + _FIRST in tensors else ""
        bare = {key.removeprefix(prefix): tensor.shape for key, tensor in tensors.items() if key.startswith(prefix)}
        options: dict[str, Any] = {"hint_widths": _hint_widths(bare)}
        if config is None:
            control = controlnet_from_compvis(infer_controlnet(bare, origin), **options)
            self.report.notes.append("config from its keys: ControlNet")
            if "shuffle" in Path(origin).name.lower():
                warnings.warn(f"{origin}: {_SHUFFLE}", stacklevel=2)
        else:
            model, where = params_of(section(config, "model", config_origin)), f"{config_origin}: model.params"
            known_only(model, PARAMETERS, where)
            control = control_of_yaml(model, where, **options)
        self.part_spec = PartSpec(type="controlnet", config=control.model_dump(mode="json", exclude_defaults=True))
        self.keymap = prefixed(controlnet_compvis(control), foreign=prefix)

    @property
    def spec(self) -> PipelineSpec:
        raise adapter_only(self.origin)

    @property
    def adapters(self) -> Mapping[str, PartSpec]:
        return {"control": self.part_spec}

    def conditioners_of(self, adapter: str) -> Mapping[str, SlotPart]:
        return hint_of(int(self.part_spec.config.get("hint_channels", 3)))

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        if part != PART:
            raise SourceError("no-part", f"there is no part {part!r}", where=self.origin, fits=PART)
        found = self.inventory.take(part, self.keymap)
        self.inventory.finish()
        return found


def infer_controlnet(shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[str, Any]:
    """Infer `control_stage_config.params` of a ControlNet for Stable Diffusion 1 or 2 from keys and shapes.

    The number of heads is not in the keys: with linear projections there are 64 channels a head as in Stable
    Diffusion 2, else 8 heads as in Stable Diffusion 1.

    Raises:
        SourceError: `config-needed` for another network.
    """
    entry, hint = shapes.get("input_blocks.0.0.weight", ()), shapes.get(_FIRST, ())
    if len(entry) != 4 or len(hint) != 4 or any(key.startswith("label_emb.") for key in shapes):
        raise _needed(where)
    widths, blocks, depths = [entry[0]], [0], [0]
    index = 1
    while (name := f"input_blocks.{index}") and any(key.startswith(f"{name}.0.") for key in shapes):
        index += 1
        if f"{name}.0.op.weight" in shapes:
            widths, blocks, depths = [*widths, widths[-1]], [*blocks, 0], [*depths, 0]
            continue
        residual = shapes.get(f"{name}.0.out_layers.3.weight", ())
        if len(residual) != 4 or residual[0] % entry[0]:
            raise _needed(where)
        widths[-1], depths[-1] = residual[0], _depth(shapes, f"{name}.1")
        blocks[-1] += 1
    attended = [level for level, depth in enumerate(depths) if depth]
    context = _first(shapes, ".attn2.to_k.weight")
    projection = _first(shapes, ".proj_in.weight")
    if not attended or 0 in blocks or len(context) != 2 or not projection:
        raise _needed(where)
    linear = len(projection) == 2
    return {
        "in_channels": entry[1], "hint_channels": hint[1], "model_channels": entry[0],
        "channel_mult": [width // entry[0] for width in widths], "num_res_blocks": blocks,
        "attention_resolutions": [2**level for level in attended], "use_spatial_transformer": True,
        "transformer_depth": [max(depth, 1) for depth in depths], "context_dim": context[1],
        "transformer_depth_middle": _depth(shapes, "middle_block.1"), "use_linear_in_transformer": linear,
        **({"num_head_channels": _HEAD_CHANNELS} if linear else {"num_heads": _HEADS}),
    }  # fmt: skip


def _depth(shapes: Mapping[str, tuple[int, ...]], name: str) -> int:
    depth = 0
    while f"{name}.transformer_blocks.{depth}.norm1.weight" in shapes:
        depth += 1
    return depth


def _first(shapes: Mapping[str, tuple[int, ...]], end: str) -> tuple[int, ...]:
    return next((shape for key, shape in shapes.items() if key.endswith(end)), ())


def _hint_widths(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Channels of the hint encoder: of its first convolution and of each one that halves the size."""
    count = 0
    while f"input_hint_block.{2 * count}.weight" in shapes:
        count += 1
    return tuple(shapes[f"input_hint_block.{4 * i}.weight"][0] for i in range(count // 2))


def _needed(where: str) -> SourceError:
    what = "the network of this ControlNet cannot be recognised by its keys"
    return SourceError("config-needed", what, where=where, fits="config= with the original yaml")
