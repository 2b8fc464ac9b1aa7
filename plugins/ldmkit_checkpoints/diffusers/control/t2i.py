"""T2I-Adapter: diffusers' config and keys, and the original flat keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit_adapters.t2i import T2IConfig

from ldmkit import PartSpec, SourceError, suggest
from ldmkit_checkpoints.conditioners import hint_of
from ldmkit_checkpoints.config_fields import checked, known_only
from ldmkit_checkpoints.diffusers.parts import Component
from ldmkit_checkpoints.keys import KeyMap, layer

Shapes = Mapping[str, tuple[int, ...]]

_FIELDS = {
    "in_channels": 3,
    "channels": (320, 640, 1280, 1280),
    "num_res_blocks": 2,
    "downscale_factor": 8,
    "adapter_type": "full_adapter",
}
"""diffusers' fields and defaults."""

_NAMES = {
    "channels": "in_channels",
    "widths": "channels",
    "blocks": "num_res_blocks",
    "unshuffle": "downscale_factor",
}
"""Native field -> diffusers' field, for errors."""

_TYPES = ("full_adapter", "full_adapter_xl", "light_adapter")

_INPUTS = {64: (1, 8), 192: (3, 8), 256: (1, 16), 768: (3, 16)}
"""Channels of the first convolution -> channels of the hint and side of the unshuffled squares, as published."""

_STARTS = ("body.0.block1.weight", "body.0.in_conv.weight", "body.0.resnets.0.block1.weight")


def prefix_of(shapes: Shapes) -> str | None:
    """What stands before every key of a T2I-Adapter; None where a file is none."""
    for start in _STARTS:
        for key in shapes:
            prefix = key.removesuffix(start)
            if prefix != key and all(other.startswith(prefix) for other in shapes):
                return prefix
    return None


def t2i_component(config: Mapping[str, Any], shapes: Shapes, where: str) -> Component:
    """T2IAdapter from its config.json.

    Raises:
        SourceError: an unknown field or type.
    """
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    known_only(given, _FIELDS, where)
    fields = {**_FIELDS, **given}
    if fields["adapter_type"] not in _TYPES:
        what = f"adapter_type is {fields['adapter_type']!r}"
        raise SourceError("unsupported", what, where=where, fits=suggest(str(fields["adapter_type"]), _TYPES))
    widths = fields["channels"]
    if not isinstance(widths, (list, tuple)) or not widths:
        raise SourceError("invalid", f"channels is {widths!r}", where=f"{where}.channels", fits="a list of integers")
    light, xl = (fields["adapter_type"] == name for name in ("light_adapter", "full_adapter_xl"))
    wide = [*widths, widths[-1]] if light else list(widths)
    inputs = (fields["in_channels"], fields["downscale_factor"])
    return _component(wide, fields["num_res_blocks"], inputs, light=light, xl=xl, where=where, prefix="adapter.")


def t2i_of_keys(shapes: Shapes, where: str) -> Component:
    """A T2I-Adapter of which there are keys alone, in diffusers' layout or the original one.

    Raises:
        SourceError: `config-needed`: sizes that no published one has.
    """
    prefix = prefix_of(shapes) or ""
    bare = {key.removeprefix(prefix): shape for key, shape in shapes.items()}
    light, grouped = "body.0.out_conv.weight" in bare, "body.0.resnets.0.block1.weight" in bare
    first = bare.get("body.0.in_conv.weight" if light else "conv_in.weight", ())
    if len(first) != 4 or first[1] not in _INPUTS:
        raise _needed(f"its first convolution has shape {list(first)}", where)
    inner = "resnets" if grouped else "body" if light else ""
    count = _count(bare, "body.{}.")
    if inner:
        blocks = _count(bare, f"body.0.{inner}.{{}}.block1.weight")
        firsts = range(count)
    else:
        blocks = next((i for i in range(1, count) if f"body.{i}.in_conv.weight" in bare), 0)
        firsts = range(0, count, max(blocks, 1))
    if not blocks or count % (1 if inner else blocks):
        raise _needed("it has no stages of equal length", where)
    end = "out_conv.weight" if light else f"{inner}.0.block1.weight" if inner else "block1.weight"
    widths = [bare.get(f"body.{i}.{end}", (0,))[0] for i in firsts]
    inputs = _INPUTS[first[1]]
    layout = "" if grouped else "flat"
    return _component(
        widths, blocks, inputs, light=light, xl=inputs[1] == 16, where=where, prefix=prefix, layout=layout
    )


def ports_of(count: int, xl: bool, where: str) -> list[str]:
    """Where diffusers' pipelines add the features: at the end of each level of Stable Diffusion's U-Nets; those of SDXL
    have three levels, of which the first has no attention, and there the map is resampled first.

    Raises:
        SourceError: `unsupported`: more features than SDXL has places.
    """
    if not xl:
        return [f"down.{i}" for i in range(count)]
    if count > 4:
        raise SourceError("unsupported", f"it has {count} features for SDXL", where=where, fits="at most 4")
    return ["down.0.resample", "down.1", "down.2", "mid"][:count]


def _component(
    widths: list[int], blocks: Any, inputs: tuple[Any, Any], *, light: bool, xl: bool, where: str, prefix: str,
    layout: str = "",
) -> Component:  # fmt: skip
    pools = tuple(i == 2 if xl else i > 0 for i in range(len(widths)))
    native: dict[str, Any] = {
        "channels": inputs[0], "unshuffle": inputs[1], "widths": tuple(widths), "blocks": blocks, "light": light,
        "pools": pools, "ports": tuple(ports_of(len(widths), xl, where)),
    }  # fmt: skip
    data = checked(T2IConfig, native, where, _NAMES)
    spec = PartSpec(type="t2i-adapter", config=data)
    made = T2IConfig.of(data)
    return Component(spec, t2i_keys(made, prefix, flat=layout == "flat"), slots=hint_of(made.channels))


def t2i_keys(config: T2IConfig, prefix: str = "adapter.", flat: bool = False) -> KeyMap:
    """Keys of diffusers' T2IAdapter, or the original ones, in which full adapters' blocks are counted through."""
    names: dict[str, str] = {} if config.light else {"conv_in": "conv_in"}
    before = config.widths[0]
    for i, width in enumerate(config.widths):
        stage, own = f"stages.{i}", f"body.{i}"
        if flat and not config.light:
            own = f"body.{i * config.blocks}"
        if config.light or width != before:
            names[f"{stage}.in_conv"] = f"{own}.in_conv"
        if config.light:
            names[f"{stage}.out_conv"] = f"{own}.out_conv"
        for j in range(config.blocks):
            block = f"{own}.{'body' if flat else 'resnets'}.{j}"
            if flat and not config.light:
                block = f"body.{i * config.blocks + j}"
            names |= {f"{stage}.blocks.{j}.conv_{k}": f"{block}.block{k}" for k in (1, 2)}
        before = width
    return {key: entry for native, foreign in names.items() for key, entry in layer(native, prefix + foreign).items()}


def _count(shapes: Shapes, pattern: str) -> int:
    count = 0
    while any(key.startswith(pattern.format(count)) for key in shapes):
        count += 1
    return count


def _needed(what: str, where: str) -> SourceError:
    fits = "diffusers' folder of it, config.json included"
    return SourceError(
        "config-needed", f"this T2I-Adapter is not one of the published sizes: {what}", where=where, fits=fits
    )
