"""Keys of IP-Adapters, under `image_proj.` and `ip_adapter.`, and what their shapes say.

| projection  | keys below `image_proj.`                                                    | of the encoder     |
|-------------|-----------------------------------------------------------------------------|--------------------|
| `plain`     | proj.{weight (tokens dim, source),bias}, norm                               | projected          |
| `full`      | proj.{0,2,3}: two layers and a LayerNorm                                    | hidden, last but 1 |
| `resampler` | latents, proj_in, layers.i.0.{norm1,norm2,to_q,to_kv,to_out}, layers.i.1... | hidden, last but 1 |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ldmkit_denoisers.config import LevelPlan, UNetConfig, down_levels, mid_level, up_levels

from ldmkit import SourceError, WeightsError
from ldmkit_checkpoints.keys import KeyMap, layer, renamed, stacked

IMAGE, ATTENTION = "image_proj.", "ip_adapter."
_HEAD = 64
"""Channels of a head of the resampler, which no key tells."""

Shapes = Mapping[str, tuple[int, ...]]


class CrossAttention(NamedTuple):
    """A cross-attention of a network: its port, and the width of its queries."""

    port: str
    width: int


def cross_attentions(config: UNetConfig) -> list[CrossAttention]:
    """Cross-attentions in the order in which IP-Adapters number them: the way down, the way up, the middle."""
    found: list[CrossAttention] = []
    for way, plans in (("down", down_levels(config)), ("up", up_levels(config))):
        for plan in plans:
            for i in range(len(plan.inputs)):
                found += _blocks(plan, f"{way}.{plan.level}.attn.{i}")
    middle = mid_level(config)
    return [*found, *_blocks(middle, "mid.attn")]


def attention_number(index: int) -> int:
    """The number that a file has for the cross-attention of an index: self-attentions, which lie between, count too."""
    return 1 + 2 * index


def _blocks(plan: LevelPlan, path: str) -> Iterator[CrossAttention]:
    for block in range(plan.depth if plan.attention == "cross" else 0):
        yield CrossAttention(f"cross.{path}.blocks.{block}", plan.width)


def refuse_others(shapes: Shapes, where: str) -> None:
    """Refuse relatives of IP-Adapters that need more than an image encoder.

    Raises:
        SourceError: `unsupported`.
    """
    face = [key for key in shapes if key == f"{IMAGE}norm.weight" and f"{IMAGE}proj.2.weight" in shapes]
    face += [key for key in shapes if key.startswith(f"{IMAGE}perceiver_resampler.") or "_lora." in key]
    if face:
        what = f"the key {face[0]!r} is of a FaceID, whose faces are recognised by InsightFace's models"
        raise SourceError("unsupported", what, where=where, fits="a plain, plus, plus-face or full-face IP-Adapter")


def projection_of(shapes: Shapes, where: str) -> dict[str, Any]:
    """The fields of `IPAdapterConfig` that an image projection's shapes say, but for `length`.

    Raises:
        SourceError: `unknown-key`: it is none of the known ones.
        WeightsError: `wrong-shape`: its shapes contradict one another.
    """
    own = {key.removeprefix(IMAGE): shape for key, shape in shapes.items() if key.startswith(IMAGE)}
    if "proj.weight" in own:
        return _plain(own, where)
    if "proj.3.weight" in own:
        width, source, dim = (_side(own, key, axis, where) for key, axis in _FULL)
        if width != source:
            what = f"{IMAGE}proj.0.weight has shape {list(own['proj.0.weight'])}"
            raise WeightsError("wrong-shape", what, where=where, fits=f"[{source}, {source}]")
        return {"projection": "full", "source": source, "dim": dim}
    if "latents" in own:
        return _resampler(own, where)
    what = f"{len(own)} keys begin with {IMAGE!r}, of no known projection"
    raise SourceError("unknown-key", what, where=where, fits="proj.weight, proj.3.weight or latents among them")


_FULL = (("proj.0.weight", 0), ("proj.0.weight", 1), ("proj.2.weight", 0))


def _plain(own: Shapes, where: str) -> dict[str, Any]:
    rows, source = (_side(own, "proj.weight", axis, where) for axis in (0, 1))
    dim = _side(own, "norm.weight", 0, where)
    if rows % dim:
        what = f"{IMAGE}proj.weight makes {rows} numbers, no multiple of {dim}, the width of {IMAGE}norm"
        raise WeightsError("wrong-shape", what, where=where)
    return {"projection": "plain", "source": source, "dim": dim, "tokens": rows // dim}


def _resampler(own: Shapes, where: str) -> dict[str, Any]:
    tokens, width = (_side(own, "latents", axis, where) for axis in (1, 2))
    source, dim = _side(own, "proj_in.weight", 1, where), _side(own, "proj_out.weight", 0, where)
    depth = 1 + max((int(found[1]) for key in own if (found := re.match(r"layers\.(\d+)\.", key))), default=-1)
    names = NAMES if "layers.0.0.to_q.weight" in own else DIFFUSERS_NAMES
    inner, mlp = (_side(own, f"layers.0.{names[part]}.weight", 0, where) for part in ("q", "fc1"))
    if inner % _HEAD:
        what = f"queries of {inner} channels, no multiple of {_HEAD}, the channels of a head"
        raise WeightsError("wrong-shape", what, where=where)
    shape = {"source": source, "dim": dim, "tokens": tokens, "width": width, "mlp": mlp, "depth": depth}
    return {"projection": "resampler", **shape, "heads": inner // _HEAD, "head_dim": _HEAD}


def _side(own: Shapes, key: str, axis: int, where: str) -> int:
    shape = own.get(key)
    if shape is None:
        raise WeightsError("missing", f"1 tensor(s) of the adapter are missing: {IMAGE + key!r}", where=where)
    if len(shape) <= axis or 0 in shape:
        raise WeightsError("wrong-shape", f"{IMAGE + key!r} has shape {list(shape)}", where=where)
    return shape[axis]


NAMES = {
    "norm_x": "0.norm1", "norm_latents": "0.norm2", "q": "0.to_q", "kv": "0.to_kv", "out": "0.to_out",
    "norm": "1.0", "fc1": "1.1", "fc2": "1.3",
}  # fmt: skip
DIFFUSERS_NAMES = {
    "norm_x": "ln0", "norm_latents": "ln1", "q": "attn.to_q", "kv": "attn.to_k attn.to_v", "out": "attn.to_out.0",
    "norm": "ff.0", "fc1": "ff.1.net.0.proj", "fc2": "ff.1.net.2",
}  # fmt: skip
"""Part of a resampler's layer -> its name below `layers.<i>.`, in IP-Adapter's files and in diffusers' modules."""


def adapter_keys(config: Mapping[str, Any], numbers: Sequence[int], shapes: Shapes) -> KeyMap:
    """Native key -> keys of the file.

    Args:
        config: of the adapter.
        numbers: of the file, for each of the adapter's attentions.
    """
    keys: KeyMap = {}
    for i, number in enumerate(numbers):
        keys[f"to_k.{i}.weight"] = renamed(f"{ATTENTION}{number}.to_k_ip.weight")
        keys[f"to_v.{i}.weight"] = renamed(f"{ATTENTION}{number}.to_v_ip.weight")
    if config["projection"] == "plain":
        return keys | layer("projection.proj", f"{IMAGE}proj") | layer("projection.norm", f"{IMAGE}norm")
    if config["projection"] == "full":
        names = {"fc1": "proj.0", "fc2": "proj.2", "norm": "proj.3"}
        return keys | {k: v for own, name in names.items() for k, v in layer(f"projection.{own}", IMAGE + name).items()}
    keys["projection.latents"] = renamed(f"{IMAGE}latents")
    for name in ("proj_in", "proj_out", "norm_out"):
        keys |= layer(f"projection.{name}", f"{IMAGE}{name}")
    for i in range(config["depth"]):
        keys |= _resampler_layer(i, NAMES if f"{IMAGE}layers.{i}.0.to_q.weight" in shapes else DIFFUSERS_NAMES)
    return keys


def _resampler_layer(i: int, names: Mapping[str, str]) -> KeyMap:
    keys: KeyMap = {}
    for part, name in names.items():
        foreign = [f"{IMAGE}layers.{i}.{one}" for one in name.split()]
        native = f"projection.layers.{i}.{part}"
        if len(foreign) > 1:
            keys[f"{native}.weight"] = stacked([f"{one}.weight" for one in foreign])
        else:
            keys |= layer(native, foreign[0], bias=part.startswith("norm"))
    return keys
