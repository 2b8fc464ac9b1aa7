"""The layers of a pipeline by their names in the published layouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from ldmkit_conditioners.clip_text import ClipPart
from ldmkit_denoisers.unet import UNet
from torch import nn

from ldmkit import Part, Port, PortedConv2d, PortedLinear
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
    """

    port: str
    weight: tuple[int, ...]
    rows: tuple[int, int] | None


Layers = Mapping[str, Layer]


class Names(NamedTuple):
    """A network's layers by their published names."""

    dotted: dict[str, Layer]
    flat: dict[str, Layer]

    def find(self, path: str, flat: bool) -> Layer | None:
        """The layer of a path."""
        return (self.flat if flat else self.dotted).get(path)


def names_in(pipeline: Composed) -> dict[str, Names]:
    """ "denoiser", "text-1", "text-2" -> its layers; networks whose published names are not known are left out.

    Text encoders are numbered as diffusers numbers them, in the order of the pipeline's conditioners.
    """
    found: dict[str, Names] = {}
    if isinstance(pipeline.denoiser, UNet):
        config = pipeline.denoiser.config
        layouts = [unet_diffusers(config), unet_compvis(config)]
        found["denoiser"] = _names(pipeline.denoiser, layouts, "")
    own = [name for name, slot in pipeline.parts.routes.items() if slot in pipeline.denoiser.slots]  # not an adapter's
    texts = [(name, pipeline.conditioners[name]) for name in own]
    towers = [(name, part) for name, part in texts if isinstance(part, ClipPart) and part.ports]
    for number, (name, part) in enumerate(towers, 1):
        layouts = [clip_hf_keys(part.config), clip_hf_keys(part.config, level="")]
        found[f"text-{number}"] = _names(part, layouts, f"conditioners.{name}.")
    return found


def _names(part: Part, layouts: list[KeyMap], prefix: str) -> Names:
    dotted: dict[str, Layer] = {}
    ports: Mapping[str, Port] = getattr(part, "ports", {})
    by_port = {id(port): name for name, port in ports.items()}
    layers = {
        f"{path}.weight": (prefix + by_port[id(layer.port)], layer)
        for path, layer in part.named_modules()
        if isinstance(layer, PortedLinear | PortedConv2d) and id(layer.port) in by_port
    }
    for layout in layouts:
        for key, (port, layer) in layers.items():
            if key in layout:
                dotted.update(_published(layout[key], port, layer))
    return Names(dotted, {name.replace(".", "_"): layer for name, layer in dotted.items()})


def _published(entry: Conversion, port: str, layer: nn.Module) -> Iterator[tuple[str, Layer]]:
    """Published paths of a layer, if its weight is published as it is, or its outputs in equal parts."""
    weight: Any = layer.weight
    shape = tuple(weight.shape)
    few = (shape[0], min(shape[1], 2), *(1 for _ in shape[2:]))
    numbers = torch.arange(few[0] * few[1]).view(few)
    if not torch.equal(torch.cat([part.flatten() for part in entry.write(numbers)]), numbers.flatten()):
        return  # another order of the outputs: no published update is of such a layer
    count = shape[0] // len(entry.keys)
    for i, key in enumerate(entry.keys):
        rows = None if len(entry.keys) == 1 else (i * count, count)
        yield key.removesuffix(".weight"), Layer(port, (count, *shape[1:]), rows)
