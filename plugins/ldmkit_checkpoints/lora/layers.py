"""The layers of a pipeline by their names in the published layouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from ldmkit_conditioners.clip_text import ClipPart
from ldmkit_denoisers.unet import UNet
from torch import nn

from ldmkit import Part, Port, Ported, PortedConv2d, PortedLinear
from ldmkit.models.abilities import able
from ldmkit.models.composed import Composed
from ldmkit_checkpoints.compvis.unet_keys import unet_compvis
from ldmkit_checkpoints.diffusers.unet_keys import unet_diffusers
from ldmkit_checkpoints.keys import Conversion, KeyMap
from ldmkit_checkpoints.transformers.text_keys import clip_hf_keys


class Layer(NamedTuple):
    """A layer that files name, or some outputs of one.

    Args:
        port: as in `LayerUpdate`.
        weight: shape of the weight, of these outputs alone.
        rows: (first, count) of them; None: all.
        published: shape of the weight in the published layout, where a linear layer may be a convolution.
    """

    port: str
    weight: tuple[int, ...]
    rows: tuple[int, int] | None
    published: tuple[int, ...]


Layers = Mapping[str, Layer]


class Names(NamedTuple):
    """A network's layers by their published names; and the paths of its other weights: norms and tables."""

    dotted: dict[str, Layer]
    flat: dict[str, Layer]
    others: frozenset[str] = frozenset()

    def find(self, path: str, flat: bool) -> Layer | None:
        """The layer of a path."""
        return (self.flat if flat else self.dotted).get(path)


def names_in(pipeline: Composed) -> dict[str, Names]:
    """ "denoiser", "text-1", "text-2", "conditioners" -> the layers there.

    Text encoders are numbered as diffusers numbers them, in the order of the pipeline's conditioners. Networks that
    have no published layout go by their own names: `<path>` in a denoiser, and `<name>.<path>` in conditioners.
    """
    denoiser = pipeline.denoiser
    layouts: list[KeyMap] = []
    if isinstance(denoiser, UNet):
        layouts = [unet_diffusers(denoiser.config), unet_compvis(denoiser.config)]
    found = {"denoiser": _names(denoiser, layouts, "")}
    others: dict[str, Layer] = {}
    number = 0
    own = [name for name, slot in pipeline.parts.routes.items() if slot in denoiser.slots]  # not an adapter's
    for name in own:
        part = pipeline.conditioners[name]
        prefix = f"conditioners.{name}."
        if isinstance(part, ClipPart) and part.ports:
            number += 1
            layouts = [clip_hf_keys(part.config), clip_hf_keys(part.config, level="")]
            found[f"text-{number}"] = _names(part, layouts, prefix)
        elif able(part, Ported) is not None:
            others |= {f"{name}.{path}": layer for path, layer in _names(part, [], prefix).dotted.items()}
    found["conditioners"] = _both(others)
    return {tower: names for tower, names in found.items() if names.dotted}


def _names(part: Part, layouts: list[KeyMap], prefix: str) -> Names:
    dotted: dict[str, Layer] = {}
    for path, port, layer in _ported(part):
        key = f"{path}.weight"
        for layout in layouts:
            if key in layout:
                dotted.update(_published(layout[key], prefix + port, layer))
        if not layouts:
            shape = tuple(layer.weight.shape)
            dotted[path] = Layer(prefix + port, shape, None, shape)
    return _both(dotted, layouts)


def _both(dotted: dict[str, Layer], layouts: Sequence[KeyMap] = ()) -> Names:
    paths = {key.rpartition(".")[0] for layout in layouts for entry in layout.values() for key in entry.keys}
    others = paths - dotted.keys()
    flat = {name.replace(".", "_"): layer for name, layer in dotted.items()}
    return Names(dotted, flat, frozenset(others | {path.replace(".", "_") for path in others}))


def _ported(part: Part) -> Iterator[tuple[str, str, nn.Linear | nn.Conv2d]]:
    """Path, port and layer of every layer with a port: one that owns it, or stands at its path."""
    ports: Mapping[str, Port] = getattr(part, "ports", {})
    modules = dict(part.named_modules())
    owners = {id(m.port): path for path, m in modules.items() if isinstance(m, PortedLinear | PortedConv2d)}
    for name, port in ports.items():
        family, _, rest = name.partition(".")
        path = owners.get(id(port), rest)
        layer = modules.get(path)
        if family in ("linear", "conv") and isinstance(layer, nn.Linear | nn.Conv2d):
            yield path, name, layer


def _published(entry: Conversion, port: str, layer: nn.Linear | nn.Conv2d) -> Iterator[tuple[str, Layer]]:
    """Published paths of a layer, if its weight is published as it is, or its outputs in equal parts."""
    shape = tuple(layer.weight.shape)
    few = (shape[0], min(shape[1], 2), *(1 for _ in shape[2:]))
    numbers = torch.arange(few[0] * few[1]).view(few)
    parts = entry.write(numbers)
    if not torch.equal(torch.cat([part.flatten() for part in parts]), numbers.flatten()):
        return  # another order of the outputs: no published update is of such a layer
    count = shape[0] // len(entry.keys)
    for i, key in enumerate(entry.keys):
        rows = None if len(entry.keys) == 1 else (i * count, count)
        weight = (count, *shape[1:])
        published = weight + (1,) * (parts[i].ndim - len(weight))
        yield key.removesuffix(".weight"), Layer(port, weight, rows, published)
