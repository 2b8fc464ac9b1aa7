"""Attribution of NaN: a failed run is repeated with a check after every part of a step.

Each check synchronises with the device, so they are not made in normal runs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.guidance import Perturbed, View
from ldmkit.contracts.step import Step
from ldmkit.contracts.value import Value
from ldmkit.errors import PluginError, RunError
from ldmkit.plugins.catalogue import name_of
from ldmkit.run.denoise import Evaluator, Guided, Rows
from ldmkit.run.guards import not_finite
from ldmkit.run.inpaint import KnownRegion
from ldmkit.run.prepared import Prepared


def blame_nan(prepared: Prepared, failed: Step) -> RunError:
    """The error for a run whose state at `failed` is not finite, with the part and step that first produced it."""
    stage = "denoiser"  # the fallback if the repeated run succeeds, because a part is not deterministic
    number = failed.index + 1
    request = prepared.request
    if _bad(prepared.x):
        stage = "start"
    else:
        guided = _WatchedGuided(_WatchedEvaluator(prepared.evaluate), request.guidance)
        denoise = prepared.denoise
        repeated = KnownRegion(guided, denoise.known, denoise.mask) if isinstance(denoise, KnownRegion) else guided
        done = 0
        try:
            for step in replace(prepared, denoise=repeated).steps():
                if _bad(step.x):
                    stage, number = f"sampler {_name('sampler', request.sampler)}", step.index + 1
                    break
                done = step.index + 1
                if done >= failed.count:
                    break
        except _Found as found:
            owner = {"sampler": request.sampler, "guidance": request.guidance}.get(found.part)
            stage = found.part if owner is None else f"{found.part} {_name(found.part, owner)}"
            number = done + 1
    return not_finite(f"{stage} at step {number} of {failed.count}")


class _Found(Exception):
    """A part returned values that are not finite."""

    def __init__(self, part: str) -> None:
        super().__init__(part)
        self.part = part


class _WatchedEvaluator(Evaluator):
    def __init__(self, evaluate: Evaluator) -> None:
        self.__dict__.update(evaluate.__dict__)

    def rows(self, x: Tensor, sigma: float, *views: View | Perturbed) -> Rows:
        if _bad(x):  # `Guided` was given a finite state
            raise _Found("guidance")
        found = super().rows(x, sigma, *views)
        if any(map(_bad, found.x0)):
            raise _Found("denoiser")
        return found


class _WatchedGuided(Guided):
    def guided(self, evaluate: Any, x: Tensor, sigma: float) -> Tensor:
        if _bad(x):
            raise _Found("sampler")
        estimate = super().guided(evaluate, x, sigma)
        if _bad(estimate):
            raise _Found("guidance")
        return estimate


def _bad(tensor: Tensor) -> bool:
    return not bool(torch.isfinite(tensor).all())


def _name(kind: str, value: Value) -> str:
    try:
        return repr(name_of(kind, type(value)).name)
    except PluginError:  # an unregistered class
        return type(value).__name__
