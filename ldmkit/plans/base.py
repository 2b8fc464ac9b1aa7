"""What all execution plans have in common: a plan is made from the weights as they are.

A plan never changes the module or a state-dict key, and its outputs agree with the eager network's within the
tolerance that `docs/performance.md` states for it. When the weights change, move or are converted, it must be made
again, and a run on a stale plan is refused.
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
    """A second module tree on the same parameters, buffers, configuration and ports."""
    other = copy.copy(module)
    other.__dict__["_modules"] = {
        name: child if child is None or isinstance(child, Port) else shadow(child)
        for name, child in module._modules.items()
    }
    return other


def fingerprint(module: nn.Module) -> Fingerprint:
    """Changes when a parameter is replaced, moved, converted or written to in place."""
    return tuple((p.data_ptr(), 0 if p.is_inference() else p._version, p.dtype) for p in module.parameters())


def check_fresh(module: nn.Module, made_from: Fingerprint, plan: str) -> None:
    """Refuse weights that are not those a plan was made from.

    Raises:
        CompositionError: `stale-plan`.
    """
    if fingerprint(module) != made_from:
        what = "the network's weights were changed, moved or converted after the plan was made"
        raise CompositionError("stale-plan", what, where="plan", fits=f"pipeline.planned({plan!r}) once more")
