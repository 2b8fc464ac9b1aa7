"""UnCLIPScheduler's tables in float64."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch


def in_double(scheduler: Any) -> Any:
    """An UnCLIPScheduler with its tables from its own formula in float64: those in float32 are 1e-6 off, and results
    of a prior 5e-4, for 1 - alpha_bar_0 is rounded."""
    bar = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    scheduler.betas = torch.tensor([min(1 - b / a, 0.999) for a, b in pairwise(bar)], dtype=torch.float64)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    scheduler.one = scheduler.one.double()
    return scheduler
