"""diffusers' ControlNetUnionModel: config.json and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit_adapters.union import TYPES, UnionConfig
from torch import Tensor

from ldmkit import ConditionerSpec, PartSpec, SlotPart, SourceError
from ldmkit_checkpoints.conditioners import hint_of
from ldmkit_checkpoints.diffusers.control.inferred import Shapes, hint_widths, unet_of_diffusers
from ldmkit_checkpoints.diffusers.controlnet import controlnet_diffusers, controlnet_from_diffusers
from ldmkit_checkpoints.diffusers.parts import Component
from ldmkit_checkpoints.diffusers.unet_config import diffusers_options
from ldmkit_checkpoints.diffusers.unet_fields import refuse
from ldmkit_checkpoints.keys import Conversion, KeyMap, layers, renamed
from ldmkit_checkpoints.unet_keys import two_layers

FIRST = "task_embedding"
"""Key that every network of this kind has."""

_HINT_WIDTHS = (48, 96, 192, 384)
_OWN = {
    "num_control_type": 6,
    "num_trans_channel": 320,
    "num_trans_head": 8,
    "num_trans_layer": 1,
    "num_proj_channel": 320,
}
"""Fields that ControlNetModel has not, and their defaults."""


def union_component(config: Mapping[str, Any], shapes: Shapes, where: str) -> Component:
    """ControlNetUnionModel from its config.json.

    Raises:
        SourceError: a field at a value with which diffusers' model does not run, or as for a ControlNetModel.
    """
    rest = {"conditioning_embedding_out_channels": _HINT_WIDTHS, **config}
    own = {key: rest.pop(key, default) for key, default in _OWN.items()}
    for key, value in own.items():
        if type(value) is not int or value < 0:
            raise refuse(key, value, "an integer")
    if rest.get("controlnet_conditioning_channel_order", "rgb") != "rgb":
        raise refuse("controlnet_conditioning_channel_order", rest["controlnet_conditioning_channel_order"], "'rgb'")
    type_dim = rest.get("addition_time_embed_dim")
    if type(type_dim) is not int:
        raise refuse("addition_time_embed_dim", type_dim, "an integer, the width of a type's code")
    plain = controlnet_from_diffusers(rest)
    width = plain.unet.widths[0]
    for key in ("num_trans_channel", "num_proj_channel"):
        if own[key] != width:
            raise refuse(key, own[key], f"{width}, which is block_out_channels[0]")
    types, count = names_of(own["num_control_type"]), own["num_trans_layer"]
    data = {**dict(plain), "types": types, "type_dim": type_dim, "layers": count}
    return _component(data, diffusers_options(config)["vector"])


def union_of_keys(shapes: Shapes, where: str) -> Component:
    """A ControlNetUnionModel of which there are keys alone.

    Raises:
        SourceError: `config-needed` for another network than Stable Diffusion's 1, 2 and XL.
    """
    first = shapes.get("controlnet_cond_embedding.conv_in.weight", (0, 0))
    count, layers_ = shapes[FIRST][0], 0
    while f"transformer_layes.{layers_}.ln_1.weight" in shapes:
        layers_ += 1
    codes = shapes.get("control_add_embedding.linear_1.weight", (0, 0))[1]
    if not first[1] or not codes or codes % count:
        raise SourceError("config-needed", "keys of a ControlNet Union are missing", where=where, fits="its folder")
    data = {
        "unet": unet_of_diffusers(shapes, where), "hint_channels": first[1],
        "hint_widths": hint_widths(shapes, "diffusers"), "types": names_of(count), "type_dim": codes // count,
        "layers": layers_,
    }  # fmt: skip
    return _component(data, "add_embedding")


def names_of(count: int) -> tuple[str, ...]:
    """The published names of the first types, numbers for those that have none."""
    return tuple(TYPES[i] if i < len(TYPES) else f"type-{i}" for i in range(count))


def _component(data: Mapping[str, Any], vector: str) -> Component:
    config = UnionConfig.of(dict(data))
    spec = PartSpec(type="controlnet-union", config=config.model_dump(mode="json", exclude_defaults=True))
    hint = hint_of(config.hint_channels).get("hint")
    slots: dict[str, SlotPart] = {}
    for name in config.types if hint is not None else ():
        slots[name] = SlotPart(ConditionerSpec(type="hint", config=hint.spec.config, input=name))
    return Component(spec, union_keys(config, vector), slots=slots)


def union_keys(config: UnionConfig, vector: str = "add_embedding") -> KeyMap:
    """Keys of diffusers' ControlNetUnionModel; `vector` as for `unet_diffusers`."""
    names = {"mean_out": "spatial_ch_projs"}
    keymap: KeyMap = {"type_embedding": renamed("task_embedding")}
    keymap |= two_layers("type_embed", "control_add_embedding.linear_1", "control_add_embedding.linear_2")
    for i in range(config.layers):
        own, theirs = f"blocks.{i}", f"transformer_layes.{i}"
        names |= {f"{own}.norm_1": f"{theirs}.ln_1", f"{own}.norm_2": f"{theirs}.ln_2"}
        names |= {f"{own}.out": f"{theirs}.attn.out_proj"}
        names |= {f"{own}.inner": f"{theirs}.mlp.c_fc", f"{own}.outer": f"{theirs}.mlp.c_proj"}
        for end in ("weight", "bias"):
            keymap[f"{own}.value.{end}"] = Conversion((f"{theirs}.attn.in_proj_{end}",), _values, _no_way_back)
    return controlnet_diffusers(config, vector) | layers(names) | keymap


def _values(stacked: Tensor) -> Tensor:
    """The values' rows of queries, keys and values; the others have no effect on a picture alone."""
    if stacked.shape[0] % 3:
        raise ValueError("not three projections")
    return stacked.chunk(3)[2]


def _no_way_back(tensor: Tensor) -> tuple[Tensor, ...]:
    what = "queries and keys of a ControlNet Union are not kept"
    raise SourceError("not-expressible", what, where="blocks", fits="the file that it was read from")
