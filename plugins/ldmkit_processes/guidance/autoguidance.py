"""Autoguidance: guidance away from a weaker network with the same conditions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

import ldmkit
from ldmkit import CompositionError, Denoiser, Evaluate, Example, Guidance, Perturbed, Process
from ldmkit.bounds import Scale
from ldmkit_processes.guidance.cfg import EVERYTHING
from ldmkit_processes.guidance.spaces import Space, rescaled_in
from ldmkit_processes.guidance.timed import Timed


class Autoguidance(Timed):
    """weak + scale (conditional - weak), weak the estimate of another network for the same conditions (Karras et al.
    2024, equation 5): a smaller one, or one that was trained for a shorter time.

    Args:
        model: a saved model, or another source for `ldmkit.load`, with the same conditions and latents. Its denoiser
            and its process are used.
        scale: s; 1 means no guidance.
        rescale, space: as of `cfg`.
        interval, start, end: when it acts.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example({"model": "a-weaker-model"}),)
    model: str
    scale: Scale = 2.0
    rescale: float = Field(default=0.0, ge=0, le=1)
    space: Space = "x0"

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        """Raises CompositionError: `weaker-network`: its conditions or latents differ."""
        if self.scale == 1 or self.rests(evaluate, sigma):
            return evaluate(x, sigma, EVERYTHING)[0]
        main = evaluate.denoiser
        dtype = str(main.dtype).removeprefix("torch.")
        denoiser, process = _loaded(self.model, _changed(self.model), str(main.device), dtype)
        _check(main, denoiser)
        conditional, weak = evaluate(x, sigma, EVERYTHING, Perturbed(denoiser=denoiser, process=process))
        guided = torch.lerp(weak, conditional, self.scale)
        if not self.rescale:
            return guided
        return rescaled_in(self.space, evaluate, x, sigma, guided, conditional, self.rescale)

    def views(self, names: Sequence[str]) -> int:
        return 1 + self.perturbed(names)

    def perturbed(self, names: Sequence[str]) -> int:
        return int(self.scale != 1)

    def plain(self, scale: float) -> None:
        """None: at scale 0 it is the weaker network's estimate."""

    def neutral(self) -> Guidance:
        return self.model_copy(update={"scale": 1.0})


def _check(main: Denoiser, weak: Denoiser) -> None:
    """Check that a weaker network is compatible with the model's own.

    Raises:
        CompositionError: `weaker-network`: its conditions, channels or latents differ.
    """
    same = dict(weak.slots) == dict(main.slots) and weak.channels == main.channels
    if same and (None in (weak.latents, main.latents) or weak.latents == main.latents):
        return  # a denoiser that was composed with its codec in Python knows of no other
    what = f"the weaker network takes {weak.channels} channels of other latents, or other slots: {sorted(weak.slots)}"
    fits = f"{main.channels} channels, slots {sorted(main.slots)} of the same dims, and the same codec"
    raise CompositionError("weaker-network", what, where="guidance.model", fits=fits)


@lru_cache(maxsize=2)
def _loaded(path: str, changed: float, device: str, dtype: str) -> tuple[Denoiser, Process]:
    pipe = ldmkit.Pipeline.load(path, device=device, dtype=dtype)
    return pipe.denoiser, pipe.process


def _changed(path: str) -> float:
    """Modification time of a folder or file, so that a model that was trained further is reloaded."""
    place = Path(path)
    return place.stat().st_mtime if place.exists() else 0.0
