"""Execution plans: other ways to call a denoiser's network, chosen per pipeline, with the same results.

A plan never changes the module or a state-dict key, and its outputs agree with the eager network's within the
tolerance that `docs/performance.md` states for it. A plan is made from the weights as they are: when they change,
move or are converted, it must be made again, and a run on a stale plan is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from ldmkit.contracts.ports import Port
from ldmkit.errors import CompositionError, shown, suggest

if TYPE_CHECKING:
    from ldmkit.contracts.denoiser import Denoiser
    from ldmkit.contracts.step import Context

Network: TypeAlias = "Callable[[Tensor, Tensor, Context, float | None], Tensor]"
"""(x, t, context, sigma) -> F: the call of a denoiser, by any plan."""

Fingerprint: TypeAlias = tuple[tuple[int, int, torch.dtype], ...]

MAX_RECOMPILES = 256
"""Specialisations of one block's code: its widths, heads and resolutions in a large network."""


def check_plan_name(denoiser: Denoiser, name: object) -> None:
    """Refuse what is no name of a plan, before it is compared with one.

    Raises:
        CompositionError: `unknown-plan`.
    """
    if not isinstance(name, str):
        what = f"{shown(name)} names no execution plan"
        raise CompositionError("unknown-plan", what, where="plan", fits=suggest(name, denoiser.plans))


def network_of(denoiser: Denoiser, name: str) -> Network:
    """The plans that every denoiser has: "eager", "auto" (the same here), "compiled", "graphed".

    Raises:
        CompositionError: `unknown-plan`, `plan-unavailable`.
    """
    check_plan_name(denoiser, name)
    if name not in denoiser.plans:
        what = f"{type(denoiser).__name__} has no execution plan {shown(name)}"
        raise CompositionError("unknown-plan", what, where="plan", fits=suggest(name, denoiser.plans))
    if name == "compiled":
        return Compiled(denoiser)
    if name == "graphed":
        from ldmkit.plans.graphed import Graphed

        return Graphed(denoiser)
    return denoiser


class Compiled:
    """torch.compile of the repeated blocks, one by one: a short compilation, and no graph depends on the depth.

    Meant for CUDA; on a CPU it needs a C++ compiler. The denoiser's own modules are not touched: the compiled calls
    live on a shadow of the module tree that shares its parameters, buffers and ports.

    Args:
        denoiser: `regions` names the classes of its repeated blocks; () compiles the whole network at once.
        backend: of torch.compile.
    """

    def __init__(self, denoiser: Denoiser, backend: str = "inductor") -> None:
        self._denoiser = denoiser
        self._made_from = fingerprint(denoiser)
        self._context: Context | None = None
        self._shadow = shadow(denoiser)
        regions: Sequence[type[nn.Module]] = denoiser.regions or (type(denoiser),)
        for module in self._shadow.modules():
            if type(module) in regions:
                module.compile(backend=backend, dynamic=False)

    def __call__(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        if context is not self._context:
            check_fresh(self._denoiser, self._made_from, "compiled")
            self._context = context
        config: Any = torch._dynamo.config
        with config.patch(recompile_limit=MAX_RECOMPILES):
            return self._shadow(x, t, context, sigma)  # type: ignore[no-any-return]


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
