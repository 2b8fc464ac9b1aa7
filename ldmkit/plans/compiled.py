"""The plan "compiled": torch.compile of a denoiser's repeated blocks, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.step import Context
from ldmkit.plans.base import check_fresh, fingerprint, shadow

MAX_RECOMPILES = 256
"""Limit of specialisations per block class, which cover the widths, heads and resolutions of a large network."""


class Compiled:
    """torch.compile applied to each repeated block, for short compile times that do not depend on the depth.

    Intended for CUDA; on a CPU it needs a C++ compiler. The denoiser's modules are not modified: the compiled blocks
    belong to a shadow module tree that shares parameters, buffers and ports.

    Args:
        denoiser: its `regions` are the classes of the repeated blocks; () compiles the whole network at once.
        backend: the backend of torch.compile.
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
