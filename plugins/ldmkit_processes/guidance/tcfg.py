"""Tangential damping classifier-free guidance."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ldmkit import Evaluate, Example
from ldmkit_processes.guidance.spaces import Space
from ldmkit_processes.guidance.timed import TwoViews, dot

TINY = 1e-24


class TCFG(TwoViews):
    """u' + scale (c - u'), u' the part of the unconditional estimate u along the direction that it shares with the
    conditional estimate c (Kwon et al. 2025, algorithm 1).

    That direction is the first right singular vector of the matrix with rows c and u, per sample. It is computed from
    the angle that diagonalises their inner products, so that the device is not synchronised.

    Args:
        scale: s; 1 means no guidance.
        space: the paper's is the network's output.
        rescale: as of `cfg`, in the same space.
        interval, start, end: when it acts.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"scale": 4.0, "space": "x0", "rescale": 0.3}),
        Example({"scale": 4.0, "interval": (0.5, 2.0), "start": 0.1, "end": 0.9}),
    )
    space: Space = "output"

    def combined(self, evaluate: Evaluate, sigma: float, conditional: Tensor, without: Tensor) -> Tensor:
        c, u = conditional, without
        angle = torch.atan2(2 * dot(c, u), dot(c, c) - dot(u, u)) / 2
        shared = angle.cos() * c + angle.sin() * u
        damped = dot(u, shared) / dot(shared, shared).clamp(min=TINY) * shared
        return torch.lerp(damped, c, self.scale)

    def plain(self, scale: float) -> None:
        """None: at scale 0 it is u', which is not the unconditional estimate."""
