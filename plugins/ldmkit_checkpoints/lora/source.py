"""A file of changes to weights, read for the pipeline whose layers it names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from ldmkit_adapters.lora.forms import BESIDE, change_of, is_form, rank_of

from ldmkit import LazyTensor, PartSpec, SourceError, WeightsError, suggest
from ldmkit.models.source import AdapterSource
from ldmkit.printable import first_few
from ldmkit_checkpoints.lora.dialects import Named, ignored, named, named_by_peft, other_network, unsupported
from ldmkit_checkpoints.lora.layers import Layer, Names
from ldmkit_checkpoints.lora.scales import Scales

NAME = "lora"
PART = f"adapters.{NAME}"

_NETWORKS = {
    "denoiser": "U-Net",
    "text-1": "CLIP text encoder",
    "text-2": "second CLIP text encoder",
    "conditioners": "conditioner",
}

Group = tuple[str, str, bool]
"""(network, path, whether the path is flat): what is changed."""


class LoraSource(AdapterSource):
    """Changes to a pipeline's weights; the adapter is named `lora`.

    Args:
        tensors: lazy tensors by the file's keys.
        names: the pipeline's layers (see `names_in`).
        scales: what the file's metadata says of alpha.
        origin: the file, for errors.
        network: that keys are of which do not say.

    Raises:
        SourceError: `other-base`, `unsupported`, `half-a-pair`: what does not fit, with the key that says so.
    """

    def __init__(
        self,
        tensors: Mapping[str, LazyTensor],
        names: Mapping[str, Names],
        scales: Scales,
        origin: str,
        *,
        network: str | None = None,
    ) -> None:
        super().__init__(origin)
        self._names, self._scales = names, scales
        # a lone second text encoder is the pipeline's first
        self._network = "text-1" if network == "text-2" and network not in names else network
        self._towers: dict[Group, str] = {}
        self._tensors: dict[str, LazyTensor] = {}
        layers: list[dict[str, Any]] = []
        groups = self._grouped(tensors)
        self._check_dialect(groups)
        placed = {group: self._place(group, roles, len(groups)) for group, roles in groups.items()}
        self._check_once({group: layer for group, layer in placed.items() if layer is not None}, groups)
        for group, roles in groups.items():
            if (layer := placed[group]) is not None:
                layers.append(self._update(len(layers), group, roles, layer, tensors))
        if not layers:
            reasons = "; ".join(dict.fromkeys(self.report.ignored.values()))
            what = f"none of its {len(groups)} layers is in this pipeline: {reasons}"
            raise SourceError("other-base", what, where=origin, fits=self._fits())
        self._spec = PartSpec(type="lora", config={"layers": layers})
        used = f"{len(self.report.used)} of {len(tensors)} keys used, which change {len(layers)} layers"
        self.report.notes.append(used)

    @property
    def adapters(self) -> Mapping[str, PartSpec]:
        return {NAME: self._spec}

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        if part != PART:
            raise SourceError("no-part", f"there is no part {part!r}", where=self.origin, fits=PART)
        return self._tensors

    def _grouped(self, tensors: Mapping[str, LazyTensor]) -> dict[Group, dict[str, str]]:
        """Layer -> role -> key."""
        groups: dict[Group, dict[str, str]] = {}
        for key in tensors:
            if (reason := ignored(key)) is not None:
                self.report.ignored[key] = reason
                continue
            if (kind := unsupported(key)) is not None:
                what = f"the key {key!r} is of {kind}, which ldmkit does not build"
                raise SourceError("unsupported", what, where=self.origin, fits="the model with it fused")
            found = named(key)
            if found is None:
                raise SourceError("unknown-key", f"the key {key!r} names no change of a weight", where=self.origin)
            roles = groups.setdefault(_group(found), {})
            if found.role in roles:
                what = f"two keys are the {found.role} of one layer: {roles[found.role]!r} and {key!r}"
                raise SourceError("duplicate-key", what, where=self.origin, fits="a file in one dialect")
            roles[found.role] = key
        return groups

    def _check_dialect(self, groups: Mapping[Group, Mapping[str, str]]) -> None:
        """Refuse files that name layers in kohya's way and with dots: nobody writes them, and alpha is not the same."""
        ways = {flat: next(iter(roles.values())) for (_, _, flat), roles in groups.items()}
        if len(ways) > 1:
            what = f"its keys are of two dialects: {ways[True]!r} and {ways[False]!r}"
            raise SourceError("two-dialects", what, where=self.origin, fits="a file in one dialect")

    def _check_once(self, placed: Mapping[Group, Layer], groups: Mapping[Group, Mapping[str, str]]) -> None:
        """Refuse two changes of one layer, by two of its names."""
        first: dict[Layer, Group] = {}
        for group, layer in placed.items():
            if (before := first.setdefault(layer, group)) != group:
                keys = " and ".join(repr(next(iter(groups[one].values()))) for one in (before, group))
                what = f"two keys are of one layer, by two of its names: {keys}"
                raise SourceError("duplicate-key", what, where=self.origin, fits="a file in one dialect")

    def _place(self, group: Group, roles: Mapping[str, str], count: int) -> Layer | None:
        """The layer that is changed; None: of a network that this pipeline has not, which is in the report."""
        tower, path, flat = group
        key = next(iter(roles.values()))
        if (other := other_network(key)) is not None:
            raise SourceError("other-base", f"the key {key!r} is of {other}", where=self.origin, fits=self._fits())
        if tower not in self._names and tower != "any":
            reason = f"the pipeline has no {_NETWORKS[tower]}"
            self.report.ignored.update(dict.fromkeys(roles.values(), reason))
            return None
        if tower == "any" and self._network is not None:
            tower = self._network
            if tower not in self._names:
                what = f"it changes a {_NETWORKS[tower]}, which this pipeline does not have"
                raise SourceError("other-base", what, where=self.origin, fits=self._fits())
        asked = self._names if tower == "any" else {tower: self._names[tower]}
        places = {name: layer for name, names in asked.items() if (layer := names.find(path, flat)) is not None}
        if len(places) > 1:
            what = f"the key {key!r} does not say of which network: {' or '.join(_NETWORKS[name] for name in places)}"
            raise SourceError("ambiguous", what, where=self.origin, fits="keys that begin with text_encoder., say")
        if not places and any(path in names.others for names in asked.values()):
            what = f"the key {key!r} is the change of a norm or a table, which ldmkit does not build"
            raise SourceError("unsupported", what, where=self.origin, fits="the model with it fused")
        if not places:
            known = [name for names in asked.values() for name in (names.flat if flat else names.dotted)]
            whose = "pipeline" if tower == "any" else f"pipeline's {_NETWORKS[tower]}"
            what = f"the key {key!r} names the layer {path!r}, which is not in the {whose}"
            raise SourceError("other-base", what, where=self.origin, fits=suggest(path, known))
        self._towers[group], layer = next(iter(places.items()))
        return layer

    def _fits(self) -> str:
        have = ", ".join(_NETWORKS[tower] for tower in self._names)
        return f"a file for this pipeline's networks: {have or 'none whose layers have published names'}"

    def _update(
        self, index: int, group: Group, roles: Mapping[str, str], layer: Layer, tensors: Mapping[str, LazyTensor]
    ) -> dict[str, Any]:
        """One entry of the adapter's `layers`; its tensors under their native names."""
        own = {role: tensors[key] for role, key in roles.items() if role != "alpha"}
        if not is_form(own):
            what = f"the layer {group[1]!r} has {', '.join(sorted(roles))}: no complete change of a weight"
            keys = first_few(sorted(roles.values()))
            raise SourceError("half-a-pair", what, where=self.origin, fits=f"what belongs with {keys}")
        for role, tensor in own.items():
            if 0 in tensor.shape or not tensor.dtype.is_floating_point:
                what = f"{roles[role]!r} is {tensor.dtype} of shape {list(tensor.shape)}"
                raise WeightsError("wrong-shape", what, where=self.origin, fits="floating-point numbers, and some")
        if "magnitude" not in own and own.keys() - BESIDE and self._scales.needs_lengths(self._towers[group]):
            what = f"the layer {group[1]!r} has no lengths, and the config says that it is a DoRA (use_dora)"
            raise SourceError("half-a-pair", what, where=self.origin, fits="lora_magnitude_vector, or use_dora false")
        shaped = {role: _like_weight(role, _widened(tensor), len(layer.weight)) for role, tensor in own.items()}
        if named_by_peft(roles.get("magnitude", "")):
            shaped["magnitude"] = _of_rows(shaped["magnitude"], len(layer.weight))
        self._check_shapes(roles, shaped, layer)
        entry: dict[str, Any] = {
            "port": layer.port,
            "tensors": {role: list(tensor.shape) for role, tensor in shaped.items()},
        }
        factor = self._factor(group, roles, {role: tensor.shape for role, tensor in shaped.items()}, tensors)
        if factor != 1.0:
            entry["factor"] = factor
        if layer.rows is not None:
            entry["rows"] = list(layer.rows)
        for role, tensor in shaped.items():
            self._tensors[f"updates.{index}.{role}"] = tensor
        self.report.used.update(dict.fromkeys(roles.values(), PART))
        return entry

    def _check_shapes(self, roles: Mapping[str, str], own: Mapping[str, LazyTensor], layer: Layer) -> None:
        first = f"{next(iter(roles.values()))!r}"
        meta = {role: torch.empty(tensor.shape, device="meta") for role, tensor in own.items() if role != "bias"}
        try:
            change = tuple(change_of(meta).shape) if meta.keys() - {"magnitude"} else layer.weight
        except (RuntimeError, IndexError, ValueError):
            shapes = ", ".join(f"{role} {list(tensor.shape)}" for role, tensor in own.items())
            raise WeightsError("wrong-shape", f"{first}: {shapes} do not fit each other", where=self.origin) from None
        flat = (layer.weight[0], math.prod(layer.weight[1:]))
        if change not in (layer.weight, flat) and not (len(layer.weight) == 2 and change == (*layer.weight, 1, 1)):
            own_shape = f"this pipeline's {layer.port!r} has {list(layer.weight)}"
            what = f"{first} changes a weight of shape {list(change)}, {own_shape}"
            raise SourceError("other-base", what, where=self.origin, fits="a file that was made for this model")
        bias, lengths = own.get("bias"), own.get("magnitude")
        if bias is not None and bias.shape != layer.weight[:1]:
            what = f"{roles['bias']!r} has shape {list(bias.shape)}, the layer {layer.weight[0]} outputs"
            raise SourceError("other-base", what, where=self.origin, fits="a file that was made for this model")
        rows, columns, rest = layer.weight[0], layer.weight[1], (1,) * (len(layer.weight) - 2)
        if lengths is not None and lengths.shape not in ((rows, 1, *rest), (1, columns, *rest)):
            what = f"{roles['magnitude']!r} has shape {list(lengths.shape)}, the weight {list(layer.weight)}"
            raise SourceError("other-base", what, where=self.origin, fits="a length for each row or column")

    def _factor(
        self,
        group: Group,
        roles: Mapping[str, str],
        shapes: Mapping[str, tuple[int, ...]],
        tensors: Mapping[str, LazyTensor],
    ) -> float:
        """Alpha over the rank, or what the metadata makes of them."""
        rank, alpha = rank_of(shapes), None
        if "alpha" in roles:
            lazy = tensors[roles["alpha"]]
            if math.prod(lazy.shape) != 1:
                what = f"{roles['alpha']!r} has shape {list(lazy.shape)}"
                raise WeightsError("wrong-shape", what, where=self.origin, fits="one number")
            alpha = float(lazy.read(True).reshape(()))
            if not math.isfinite(alpha):
                raise WeightsError("not-finite", f"{roles['alpha']!r} is {alpha}", where=self.origin)
            if alpha <= 0:
                what = f"{roles['alpha']!r} is {alpha:g}"
                raise WeightsError("alpha-range", what, where=self.origin, fits="a number above 0")
        return self._scales.factor(self._towers[group], group[1], rank, alpha)


def _group(found: Named) -> Group:
    return found.tower, found.path, found.flat


def _of_rows(tensor: LazyTensor, axes: int) -> LazyTensor:
    """peft's lengths, which are always those of rows: (outputs,), or (1, outputs, 1, 1) of a convolution."""
    shape = (math.prod(tensor.shape), *(1,) * (axes - 1))
    return LazyTensor(shape, tensor.dtype, lambda copy: tensor.read(copy).reshape(shape))


def _widened(tensor: LazyTensor) -> LazyTensor:
    """Floats of 8 bits, in which networks do not compute, as float32."""
    if tensor.dtype.itemsize > 1:
        return tensor
    return LazyTensor(tensor.shape, torch.float32, lambda copy: tensor.read(copy).float())


def _like_weight(role: str, tensor: LazyTensor, axes: int) -> LazyTensor:
    """Tensors of a 1x1 convolution that is a linear layer here, as matrices."""
    if axes == 2 and len(tensor.shape) == 4 and tensor.shape[2:] == (1, 1):
        return LazyTensor(tensor.shape[:2], tensor.dtype, lambda copy: tensor.read(copy).flatten(1))
    return tensor
