"""Low-rank changes written as other programs read them: kohya's keys, or those of diffusers and peft."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from ldmkit_adapters.lora.adapter import LoRA
from ldmkit_adapters.lora.update import LayerUpdate
from torch import Tensor

from ldmkit import CompositionError
from ldmkit.models.composed import Composed
from ldmkit.models.weights import write_safetensors
from ldmkit_checkpoints.lora.layers import Layer, names_in
from ldmkit_checkpoints.lora.scales import METADATA, TOWERS

LoraLayout: TypeAlias = Literal["diffusers", "kohya"]

_WRITTEN = frozenset({"down", "up", "magnitude"})
_PEFT = {"down": "lora_A.weight", "up": "lora_B.weight", "magnitude": "lora_magnitude_vector"}
_KOHYA = {"down": "lora_down.weight", "up": "lora_up.weight", "magnitude": "dora_scale"}


class Written(NamedTuple):
    """A changed layer as it is published.

    Args:
        tower, path: as in `names_in`.
        rank, alpha: of the change.
        tensors: by role, in the published shapes.
    """

    tower: str
    path: str
    rank: int
    alpha: float
    tensors: dict[str, Tensor]


def write_lora(path: Path, lora: LoRA, pipeline: Composed, layout: LoraLayout) -> None:
    """Write the changes of a pipeline's weights.

    Layers without a published layout (a text encoder other than CLIP) are named by their own paths, which ldmkit reads.

    Raises:
        CompositionError: `not-published`: a change that is not of low rank, or of a layer that the pipeline lacks.
        RunError: `cannot-write`.
    """
    layers = published(lora, pipeline)
    write = _kohya if layout == "kohya" else _diffusers
    tensors, metadata = write(layers)
    write_safetensors(path, {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, metadata)


def published(lora: LoRA, pipeline: Composed) -> list[Written]:
    """Every change of an adapter under its layer's published name.

    Raises:
        CompositionError: as `write_lora`.
    """
    places: dict[tuple[str, tuple[int, int] | None], tuple[str, str, Layer]] = {}
    for tower, names in names_in(pipeline).items():
        for path, layer in names.dotted.items():
            places.setdefault((layer.port, layer.rows), (tower, path, layer))
    found = []
    for update, config in zip(lora.updates, lora.config.layers, strict=True):
        if not {"down", "up"} <= config.tensors.keys() <= _WRITTEN or (config.port, config.rows) not in places:
            what = f"the change of {config.port!r} ({', '.join(config.tensors)}) has no published form"
            raise CompositionError("not-published", what, fits="down and up, of a layer of this pipeline")
        tower, path, layer = places[config.port, config.rows]
        tensors: dict[str, Tensor] = {name: getattr(update, name) for name in config.tensors}
        rank = tensors["down"].shape[0]
        shaped = {role: _published(role, tensor, layer) for role, tensor in tensors.items()}
        found.append(Written(tower, path, rank, _alpha(config, rank), shaped))
    return found


def _alpha(config: LayerUpdate, rank: int) -> float:
    """The alpha whose quotient by the rank is the factor, bit for bit where there is one that is a short number."""
    alpha = config.factor * rank
    short = float(f"{alpha:.6g}")
    return short if short / rank == config.factor else alpha


def _published(role: str, tensor: Tensor, layer: Layer) -> Tensor:
    """A tensor in the shape that it has beside the published weight."""
    extra = (1,) * (len(layer.published) - 2)
    if role == "down":
        return tensor.reshape(tensor.shape[0], *layer.published[1:])
    return tensor.reshape(tensor.shape[0], tensor.shape[1], *extra)


def _kohya(layers: Sequence[Written]) -> tuple[dict[str, Tensor], dict[str, str]]:
    double = any(layer.tower == "text-2" for layer in layers)
    flat = {"denoiser": "lora_unet", "text-1": "lora_te1" if double else "lora_te", "text-2": "lora_te2"}
    flat["conditioners"] = "lora_conditioners"
    tensors: dict[str, Tensor] = {}
    for layer in layers:
        name = f"{flat[layer.tower]}_{layer.path.replace('.', '_')}"
        tensors |= {f"{name}.{_KOHYA[role]}": tensor for role, tensor in layer.tensors.items()}
        tensors[f"{name}.alpha"] = torch.tensor(layer.alpha)
    said = {"ss_network_module": "networks.lora", "ss_network_dim": str(_most([one.rank for one in layers]))}
    return tensors, {**said, "ss_network_alpha": str(_most([one.alpha for one in layers]))}


def _diffusers(layers: Sequence[Written]) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors: dict[str, Tensor] = {}
    configs: dict[str, Any] = {}
    for tower, prefix in TOWERS.items():
        own = [layer for layer in layers if layer.tower == tower]
        for layer in own:
            name = f"{prefix}.{layer.path}"
            tensors |= {f"{name}.{_PEFT[role]}": _as_peft(role, tensor) for role, tensor in layer.tensors.items()}
        if own:
            configs |= {f"{prefix}.{field}": value for field, value in _config(own).items()}
    return tensors, {METADATA: json.dumps(configs, indent=2, sort_keys=True)}


def _as_peft(role: str, tensor: Tensor) -> Tensor:
    """peft keeps the lengths of a linear layer as (outputs,), of a convolution as (1, outputs, 1, 1)."""
    if role != "magnitude":
        return tensor
    return tensor.flatten() if tensor.ndim == 2 else tensor.transpose(0, 1)


def _config(layers: Sequence[Written]) -> Mapping[str, Any]:
    """The fields of peft's config that say what the tensors mean; the others have their defaults.

    Paths in a text encoder are without `text_model.`, which transformers had until version 5: peft looks at their ends.
    """
    paths = [layer.path.removeprefix("text_model.") for layer in layers]
    rank, alpha = _most([layer.rank for layer in layers]), _most([layer.alpha for layer in layers])
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {re.escape(p): one.rank for p, one in zip(paths, layers, strict=True) if one.rank != rank},
        "alpha_pattern": {re.escape(p): one.alpha for p, one in zip(paths, layers, strict=True) if one.alpha != alpha},
        "target_modules": sorted(paths),
        "use_dora": any("magnitude" in layer.tensors for layer in layers),
        "use_rslora": False,
        "bias": "none",
        "lora_bias": False,
        "lora_dropout": 0.0,
    }


def _most(values: Sequence[Any]) -> Any:
    """The most frequent value, the first of several."""
    return Counter(values).most_common(1)[0][0]
