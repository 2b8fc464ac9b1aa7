"""Helpers shared by all execution plans.

A plan is built from the current weights. It never changes the module or a state-dict key, and its outputs agree with
the eager network's within the tolerance stated in `docs/performance.md`. Once the weights are changed, moved or
converted, the plan is stale: it must be rebuilt, and running it is an error.
"""

from __future__ import annotations

import copy
from typing import TypeAlias

import torch
from torch import nn

from ldmkit.contracts.ports import Port
from ldmkit.errors import CompositionError

Fingerprint: TypeAlias = tuple[tuple[int, int, torch.dtype], ...]


def shadow(module: nn.Module) -> nn.Module:
    """A second module tree that shares parameters, buffers, configuration and ports."""
    other = copy.copy(module)
    other.__dict__["_modules"] = {
        name: child if child is None or isinstance(child, Port) else shadow(child)
        for name, child in module._modules.items()
    }
    return other


def fingerprint(module: nn.Module) -> Fingerprint:
    """A value that changes when a parameter is replaced, moved, converted or modified in place."""
    return tuple((p.data_ptr(), 0 if p.is_inference() else p._version, p.dtype) for p in module.parameters())


def check_fresh(module: nn.Module, made_from: Fingerprint, plan: str) -> None:
    """Refuse to run if the weights are no longer those from which the plan was built.

    Raises:
        CompositionError: `stale-plan`.
    """
    if fingerprint(module) != made_from:
        what = "the network's weights were changed, moved or converted after the plan was built"
        raise CompositionError("stale-plan", what, where="plan", fits=f"call pipeline.planned({plan!r}) again")
