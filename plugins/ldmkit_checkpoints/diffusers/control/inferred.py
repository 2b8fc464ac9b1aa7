"""The first half of a U-Net, told from the keys and shapes of a ControlNet, in either layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ldmkit_denoisers.config import UNetConfig

from ldmkit import LdmkitError, SourceError

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

_HEADS = 8
_HEAD_CHANNELS = 64


@dataclass
class _Level:
    """Width, and the transformer blocks after each residual block."""

    width: int = 0
    depths: list[int] = field(default_factory=list)


def unet_of_compvis(shapes: Shapes, where: str) -> UNetConfig:
    """The network of cldm's and sgm's keys: input_blocks, middle_block.

    Raises:
        SourceError: `config-needed`.
    """
    levels, index = [_Level()], 1
    while any(key.startswith(f"input_blocks.{index}.0.") for key in shapes):
        name = f"input_blocks.{index}"
        if f"{name}.0.op.weight" in shapes:
            levels.append(_Level())
        else:
            _add(levels[-1], shapes, f"{name}.0.out_layers.3.weight", f"{name}.1")
        index += 1
    middle = "cross" if _depth(shapes, "middle_block.1") else _plain_middle("middle_block.1.in_layers.2.weight", shapes)
    first, vector = shapes.get("input_blocks.0.0.weight", ()), shapes.get("label_emb.0.0.weight")
    known = not any(key.startswith("label_emb.") for key in shapes) or vector is not None
    return _built(shapes, levels, (first, vector), middle, _depth(shapes, "middle_block.1"), (where, "compvis"), known)


def unet_of_diffusers(shapes: Shapes, where: str) -> UNetConfig:
    """The network of diffusers' keys: down_blocks, mid_block.

    Raises:
        SourceError: `config-needed`.
    """
    levels: list[_Level] = []
    for i in _counted(shapes, "down_blocks.{}."):
        levels.append(_Level())
        for j in _counted(shapes, f"down_blocks.{i}.resnets.{{}}."):
            block = f"down_blocks.{i}"
            _add(levels[-1], shapes, f"{block}.resnets.{j}.conv1.weight", f"{block}.attentions.{j}")
    depth = _depth(shapes, "mid_block.attentions.0")
    middle = "cross" if depth else _plain_middle("mid_block.resnets.1.conv1.weight", shapes)
    first, vector = shapes.get("conv_in.weight", ()), shapes.get("add_embedding.linear_1.weight")
    known = not any(key.startswith("class_embedding.") for key in shapes)
    return _built(shapes, levels, (first, vector), middle, depth, (where, "diffusers"), known)


def hint_widths(shapes: Shapes, layout: str) -> tuple[int, ...]:
    """Channels of the hint encoder: of its first convolution and of each one that halves the size."""
    if layout == "compvis":
        count = len(list(_counted(dict.fromkeys(shapes, ()), "input_hint_block.{}.weight", 2)))
        return tuple(shapes[f"input_hint_block.{4 * i}.weight"][0] for i in range(count // 2))
    encoder = "controlnet_cond_embedding"
    count = len(list(_counted(shapes, f"{encoder}.blocks.{{}}.weight")))
    halving = (shapes[f"{encoder}.blocks.{2 * i + 1}.weight"][0] for i in range(count // 2))
    return (shapes[f"{encoder}.conv_in.weight"][0], *halving)


def _plain_middle(second: str, shapes: Shapes) -> str:
    """The kind of a middle without attention, by whether it has a second residual block."""
    return "none" if second in shapes else "single"


def _add(level: _Level, shapes: Shapes, weight: str, attention: str) -> None:
    level.width = shapes.get(weight, (0,))[0]
    level.depths.append(_depth(shapes, attention))


def _built(
    shapes: Shapes,
    levels: list[_Level],
    ends: tuple[Any, Any],
    middle: str,
    depth: int,
    where: tuple[str, str],
    known: bool,
) -> UNetConfig:
    """The config of what was found.

    The number of heads is not in the keys: with linear projections there are 64 channels a head, as in Stable Diffusion
    2 and XL, else 8 heads as in Stable Diffusion 1.
    """
    first, vector = ends
    depths = [set(level.depths) for level in levels]
    projection, context = _first(shapes, ".proj_in.weight"), _first(shapes, ".attn2.to_k.weight")
    attended = bool(depth) or any(any(found) for found in depths)
    if len(first) != 4 or not known or any(len(found) != 1 for found in depths) or attended != (len(context) == 2):
        raise _needed(*where)
    linear = len(projection) == 2 or not attended
    kinds = tuple("cross" if max(level.depths) else "none" for level in levels)
    data: dict[str, Any] = {
        "channels": first[1], "in_channels": first[1], "out_channels": first[1],
        "widths": tuple(level.width for level in levels), "blocks": tuple(len(level.depths) for level in levels),
        "attention": kinds, "depth": tuple(max(*level.depths, 1) for level in levels), "mid": middle,
        "mid_depth": max(depth, 1), "context_dim": context[1] if attended else None, "linear_projections": linear,
        "vector": "none" if vector is None else "mlp", "vector_dim": None if vector is None else vector[1],
        **({"head_dim": _HEAD_CHANNELS} if linear else {"heads": _HEADS}),
    }  # fmt: skip
    try:
        return UNetConfig.of(data)
    except LdmkitError as error:
        raise _needed(*where) from error


def _depth(shapes: Shapes, name: str) -> int:
    return len(list(_counted(shapes, f"{name}.transformer_blocks.{{}}.norm1.weight")))


def _counted(shapes: Shapes, pattern: str, step: int = 1) -> Iterator[int]:
    """0, step, 2 step ... as far as there are keys that begin with the pattern filled in."""
    number = 0
    while any(key.startswith(pattern.format(number)) for key in shapes):
        yield number
        number += step


def _first(shapes: Shapes, end: str) -> tuple[int, ...]:
    return next((shape for key, shape in shapes.items() if key.endswith(end)), ())


def _needed(where: str, layout: str) -> SourceError:
    what = "the network of this ControlNet cannot be recognised by its keys"
    fits = "config= with the original yaml" if layout == "compvis" else "its folder of diffusers, config.json included"
    return SourceError("config-needed", what, where=where, fits=fits)
