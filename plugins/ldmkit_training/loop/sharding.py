"""FSDP2: weights, averages and optimiser states sharded among processes along each tensor's first axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ldmkit import Turn, Value


class Sharding(Value):
    """Keys of stages whose weights can be sharded; their `Config` derives from it.

    Args:
        sharded: with several processes, shard weights, averages and optimiser states among them (FSDP2).
    """

    sharded: bool = False


def is_sharded(recipe: Value) -> bool:
    """Whether a recipe asks for sharded weights."""
    return isinstance(recipe, Sharding) and recipe.sharded


def shard(turn: Turn, device: torch.device, processes: int) -> None:
    """Shard a turn's parameters in place; the forward pass gathers them, the backward pass frees them."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    fully_shard(turn, mesh=init_device_mesh(device.type, (processes,)))


def gathered(tensor: Tensor) -> Tensor:
    """The full tensor; must be called by all processes."""
    unsharded: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return unsharded.detach()


def sharded_like(value: Tensor, like: Tensor) -> Tensor:
    """A full tensor, sharded like `like` and on its device."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    moved = value.detach().to(like.device)
    if isinstance(like, DTensor) and value.shape == like.shape:
        return distribute_tensor(moved, like.device_mesh, like.placements)
    return moved


def gathered_all(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`gathered` for each tensor."""
    return {name: gathered(tensor) for name, tensor in tensors.items()}


@contextmanager
def unsharded(turns: Iterable[Any], sharded: bool) -> Iterator[None]:
    """Inside the block every process holds the full parameters, and any process may call the networks."""
    listed = list(turns) if sharded else []
    for turn in listed:
        turn.unshard()
    try:
        yield
    finally:
        for turn in listed:
            turn.reshard()


@contextmanager
def resharded(turns: Iterable[Any], sharded: bool) -> Iterator[None]:
    """The reverse, inside a `whole` block: the shards can be written to."""
    listed = list(turns) if sharded else []
    for turn in listed:
        turn.reshard()
    try:
        yield
    finally:
        for turn in listed:
            turn.unshard()
