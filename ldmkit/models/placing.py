"""Applying a placement: copies of a pipeline's modules, which share tensors that stay where they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from ldmkit.contracts.arguments import check_device, check_dtype
from ldmkit.contracts.conditioner_abilities import UsesCodec
from ldmkit.contracts.part import Part
from ldmkit.errors import CompositionError
from ldmkit.models.abilities import able
from ldmkit.models.compose import Parts
from ldmkit.models.fusing import twins
from ldmkit.models.mapped import MappedFile, files_of
from ldmkit.models.placement import PartPlacement, Placement, Rest, places_of, rounded_by
from ldmkit.models.residence import Placed, Residence, Shelf, Streamed
from ldmkit.models.resting import EightBit, InMemory, Resting, eight_bits, on_disk
from ldmkit.models.spec import ConditionerSpec, owners_of

Rounded: TypeAlias = dict[str, dict[str, str]]
"""Path of a part -> the fields of its placement that change numerical results."""

TensorSlot: TypeAlias = tuple[nn.Module, str, str]
"""A module, `_parameters` or `_buffers`, and the name of a tensor in it."""


def placed_parts(
    parts: Parts, wiring: Mapping[str, ConditionerSpec], placement: Placement, *, strict: bool = True
) -> tuple[Parts, Rounded]:
    """The same parts, with copies of those that a placement names; the arguments are unchanged.

    Parts that are already placed stay as they are.

    Args:
        strict: refuse names of parts that do not exist.

    Raises:
        InputError: `unknown-part`, `placement`.
        CompositionError: `placement-shared`: conditioners that share weights are placed differently.
    """
    places = places_of(placement, parts, strict=strict)
    device = parts.denoiser.device if placement.device is None else check_device(placement.device, meta=True)
    rest: Rest = placement.rest or ("disk" if device.type == "cpu" else "cpu")
    every: dict[str, Part] = parts.items()
    _check_shared(places, wiring)
    network = places.get("denoiser", PartPlacement())
    named = {path for path, part in every.items() if path in places and part.placed is None}
    if (dtype := check_dtype(network.dtype)) is not None:
        named |= {f"adapters.{name}" for name, part in parts.adapters.items() if part.dtype != dtype}
    which = {path: every[path] for path in _with_bound(named | _elsewhere(every, device), parts, wiring)}
    copies = twins(parts, which) if which else {}
    rounded: Rounded = {}
    for paths in _together(copies, wiring):
        place = places.get(paths[0], PartPlacement())
        if paths[0].startswith("adapters."):
            place = PartPlacement(dtype=network.dtype)
        elif fields := rounded_by(copies[paths[0]], place):
            rounded |= dict.fromkeys(paths, fields)
        files = {file for path in paths for file in files_of(every[path])}
        place_part([copies[path] for path in paths], place, device, rest, files)
    return _replaced(parts, copies), rounded


def unplaced(parts: Parts) -> Parts:
    """The same parts, with placed ones replaced by copies that hold their resting tensors directly."""
    which = {path: part for path, part in parts.items().items() if part.placed is not None}
    return _replaced(parts, twins(parts, which)) if which else parts


def place_part(
    parts: Sequence[Part], place: PartPlacement, device: torch.device, rest: Rest, files: Collection[MappedFile] = ()
) -> None:
    """Place a part in place; only for copies that nothing else uses.

    Args:
        parts: the part, and those that share its weights.
        files: mapped files that may contain its tensors.
    """
    if (dtype := check_dtype(place.dtype)) is not None:
        for part in parts:
            part.to(dtype=dtype)
    if place.when == "always" and place.stored is None:
        for part in parts:
            if _is_elsewhere(part, device):
                part.to(device=device)
        return
    dtypes = [part.dtype for part in parts]
    residence = _on_device(parts, place, device) if place.when == "always" else _away(parts, place, device, rest, files)
    residence.to(device)
    for part, held in zip(parts, dtypes, strict=True):
        part.placed = Placed(residence, held)


def _on_device(parts: Sequence[Part], place: PartPlacement, device: torch.device) -> Residence:
    """Keep linear layers' weights as integers on the device, dequantised block by block; the rest unchanged."""
    blocks = _distinct(block for part in parts for block in (*blocks_of(part), *_linear(part)))
    slots = [slot for block in blocks for slot in _slots(block) if _is_weight(slot)]
    resting = _resting(slots, place, _RestingPlace(device, "cpu", (), False))
    free = [shelf for part in parts for shelf in _free(part, resting)]
    return Streamed([(block, _shelves([block], resting)) for block in blocks], [], device, free, ahead=False)


def _away(
    parts: Sequence[Part], place: PartPlacement, device: torch.device, rest: Rest, files: Collection[MappedFile]
) -> Residence:
    """Keep tensors off the device, fetched block by block or while the part computes."""
    streamed = place.when == "streamed"
    blocks = _distinct(block for part in parts for block in blocks_of(part)) if streamed else []
    slots = [slot for part in parts for slot in _slots(part)]
    resting = _resting(slots, place, _RestingPlace(None, rest, files, streamed))
    if not streamed:
        return Residence(_shelves(parts, resting), device)
    own = [(block, _shelves([block], resting)) for block in blocks]
    inside = {id(shelf.module) for _, shelves in own for shelf in shelves}
    edges = [shelf for shelf in _shelves(parts, resting) if id(shelf.module) not in inside]
    return Streamed(own, edges, device)


def _distinct(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Each module once, without modules contained in an earlier one."""
    found: list[nn.Module] = []
    inside: set[int] = set()
    for module in modules:
        if id(module) not in inside:
            found.append(module)
            inside |= {id(inner) for inner in module.modules()}
    return found


def _linear(part: Part) -> Iterator[nn.Module]:
    return (module for module in part.modules() if isinstance(module, nn.Linear))


def blocks_of(part: Part) -> Iterator[nn.Module]:
    """The modules that are streamed one by one: the blocks that a denoiser declares, else the entries of module lists.

    The rest (embeddings and the like) stays on the device while the part computes.
    """
    regions = tuple(getattr(part, "regions", ()))
    waiting = [(child, False) for child in part.children()]
    while waiting:
        module, listed = waiting.pop(0)
        if type(module) in regions or (not regions and listed):
            yield module
        else:
            inside = isinstance(module, (nn.ModuleList, nn.Sequential))
            waiting = [*((child, inside) for child in module.children()), *waiting]


def _elsewhere(every: Mapping[str, Part], device: torch.device) -> set[str]:
    """Parts with tensors that are not on the device."""
    return {path for path, part in every.items() if part.placed is None and _is_elsewhere(part, device)}


def _is_elsewhere(part: Part, device: torch.device) -> bool:
    return any(tensor.device != device for tensor in chain(part.parameters(), part.buffers()))


def _with_bound(paths: Collection[str], parts: Parts, wiring: Mapping[str, ConditionerSpec]) -> list[str]:
    """These parts, and those that refer to one of them: sharers of weights, conditioners bound to the codec."""
    found = set(paths)
    for reader, owner in owners_of(wiring).items():
        if {reader, owner} & found:
            found |= {reader, owner}
    if "codec" in found:
        bound = (name for name, part in parts.conditioners.items() if able(part, UsesCodec) is not None)
        found |= {f"conditioners.{name}" for name in bound}
    return [path for path in parts.items() if path in found]


def _check_shared(places: Mapping[str, PartPlacement], wiring: Mapping[str, ConditionerSpec]) -> None:
    for reader, owner in owners_of(wiring).items():
        if places.get(reader) != places.get(owner):
            what = f"{reader} shares the weights of {owner}, but is placed differently"
            raise CompositionError("placement-shared", what, where="placement", fits="the same placement for both")


def _together(paths: Collection[str], wiring: Mapping[str, ConditionerSpec]) -> list[list[str]]:
    """Groups of paths that share weights, the owner first."""
    owners = owners_of(wiring)
    return [
        [path, *(reader for reader, owner in owners.items() if owner == path and reader in paths)]
        for path in paths
        if path not in owners
    ]


def _replaced(parts: Parts, copies: Mapping[str, Any]) -> Parts:
    conditioners = {name: copies.get(f"conditioners.{name}", part) for name, part in parts.conditioners.items()}
    adapters = {name: copies.get(f"adapters.{name}", part) for name, part in parts.adapters.items()}
    codec, denoiser = copies.get("codec", parts.codec), copies.get("denoiser", parts.denoiser)
    return replace(parts, codec=codec, denoiser=denoiser, conditioners=conditioners, adapters=adapters)


def _slots(part: nn.Module) -> list[TensorSlot]:
    return [
        (module, table, name)
        for module in part.modules()
        for table in ("_parameters", "_buffers")
        for name, tensor in getattr(module, table).items()
        if tensor is not None
    ]


def _tensor(slot: TensorSlot) -> Tensor:
    module, table, name = slot
    found: Tensor = getattr(module, table)[name].detach()
    return found


def _is_weight(slot: TensorSlot) -> bool:
    module, _, name = slot
    return isinstance(module, nn.Linear) and name == "weight"


class _RestingPlace(NamedTuple):
    """Where tensors are kept: on the device itself, on the CPU or in files; `streamed`: fetched block by block."""

    device: torch.device | None
    rest: Rest
    files: Collection[MappedFile]
    streamed: bool

    def of(self, tensors: dict[int, Tensor]) -> dict[int, Resting]:
        if self.device is not None:
            return {key: InMemory(tensor.to(self.device)) for key, tensor in tensors.items()}
        if self.rest == "disk":
            return on_disk(tensors, self.files)
        pin = self.streamed and torch.cuda.is_available()
        return {key: InMemory(t.cpu().pin_memory() if pin else t.cpu()) for key, t in tensors.items()}


Rests: TypeAlias = dict[int, dict[tuple[str, str], Resting]]
"""Id of a module -> its resting tensors."""


def _resting(slots: Collection[TensorSlot], place: PartPlacement, bed: _RestingPlace) -> Rests:
    """Put the tensors of some slots at rest; a tensor in several slots is kept once."""
    given = {id(getattr(module, table)[name]): (module, table, name) for module, table, name in slots}
    tensors = {key: _tensor(slot) for key, slot in given.items()}
    dtypes = {key: tensor.dtype for key, tensor in tensors.items()}
    scales: dict[int, Tensor] = {}
    if place.stored is not None:
        for key, slot in given.items():
            if _is_weight(slot):
                tensors[key], scales[key] = eight_bits(tensors[key])
    kept = bed.of(tensors)
    kept |= {key: EightBit(kept[key], scale, dtypes[key]) for key, scale in scales.items()}
    found: Rests = {}
    for module, table, name in slots:
        found.setdefault(id(module), {})[table, name] = kept[id(getattr(module, table)[name])]
    return found


def _shelves(roots: Iterable[nn.Module], resting: Rests) -> list[Shelf]:
    modules = {id(module): module for root in roots for module in root.modules()}
    return [Shelf(module, resting[key]) for key, module in modules.items() if key in resting]


def _free(part: Part, resting: Rests) -> Iterator[Shelf]:
    """The tensors that stay on the device."""
    by_module: dict[int, list[TensorSlot]] = {}
    for slot in _slots(part):
        if (slot[1], slot[2]) not in resting.get(id(slot[0]), {}):
            by_module.setdefault(id(slot[0]), []).append(slot)
    for own in by_module.values():
        yield Shelf(own[0][0], {(table, name): InMemory(_tensor((m, table, name))) for m, table, name in own})
