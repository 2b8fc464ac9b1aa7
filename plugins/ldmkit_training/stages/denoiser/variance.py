"""The loss of a learned variance: L_vlb of Nichol & Dhariwal 2021, whose gradient reaches the variance alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from ldmkit_processes.discrete import Discrete
from torch import Tensor

from ldmkit import CompositionError, Denoiser, Process, column

BIN = 1 / 255
"""Half the distance between two of 256 levels in [-1, 1]."""
_LEAST = 1e-12
"""Smallest probability of a level, whose logarithm is taken."""


def check_variance(denoiser: Denoiser, process: Process, weight: float) -> str | None:
    """What to say of a network's variance before training; None if nothing.

    Raises:
        CompositionError: `no-variance`: a weight for a variance that the network does not learn; `variance-process`:
            a process without a table of timesteps.
    """
    out = getattr(denoiser.config, "out_channels", denoiser.channels) or denoiser.channels
    learns = out == 2 * denoiser.channels
    if not weight:
        what = f"the second half of the network's {out} output channels, a learned variance, is not trained"
        return f"{what} (objective.variance: 0.001)" if learns else None
    if not learns:
        what = f"the network has {out} output channels"
        fits = f"out_channels: {2 * denoiser.channels}, or variance: 0"
        raise CompositionError("no-variance", what, where="objective.variance", fits=fits)
    if not isinstance(process, Discrete):
        raise _no_table(process)
    return None


def _no_table(process: Process) -> CompositionError:
    what = f"{type(process).__name__} has no timesteps between which the bound is"
    return CompositionError("variance-process", what, where="objective.variance", fits="the process 'discrete'")


def variance_bound(output: Tensor, process: Process, x0: Tensor, *, noise: Tensor, sigma: Sequence[float]) -> Tensor:
    """T L_t in bits per element, whose mean over uniform timesteps is L_vlb but for a constant (equations 4 to 7, 15).

    L_t is KL(q(z_t-1 | z_t, x0) || p(z_t-1 | z_t)), and for t = 0 -log p(x0 | z_0) of one of 256 levels in [-1, 1]. The
    mean of p is taken without gradient; the second half of the output interpolates the logarithm of its variance.

    Args:
        output: of the network, (B, 2C, ...).
        x0: clean latents (B, C, ...); `noise` of their shape; `sigma` one level of the table for each row.

    Returns:
        (B,) float32.

    Raises:
        CompositionError: `variance-process`, `no-variance`, or levels between those of the table.
    """
    if not isinstance(process, Discrete):
        raise _no_table(process)
    if output.shape[1] != 2 * x0.shape[1]:
        what = f"the network returned {output.shape[1]} channels for {x0.shape[1]}"
        raise CompositionError("no-variance", what, where="objective.variance", fits=f"{2 * x0.shape[1]}")
    times = [round(process.time(level)) for level in sigma]
    for t, level in zip(times, sigma, strict=True):
        if not math.isclose(process.table.sigmas[t], level, rel_tol=1e-6):
            what = f"the noise level {level:.6g} is none of the table's, between which the bound is"
            raise CompositionError(
                "variance-process", what, where="objective.times", fits="times of the table: uniform"
            )
    posteriors = [process.posterior(t) for t in times]
    predicted, raw = output.float().split(x0.shape[1], dim=1)
    rows = [process.scalings(level) for level in sigma]
    x = x0 + column(list(sigma), x0) * noise
    guess = column([skip for skip, _, _ in rows], x0) * x + column([out for _, out, _ in rows], x0) * predicted.detach()
    difference = column([p.on_x0 for p in posteriors], x0) * (x0 - guess)
    least = [math.log(process.posterior(max(t, 1)).variance) for t in times]  # that of t = 0 is 0: clipped to t = 1's
    most = [math.log(process.table.betas[t]) for t in times]
    wider = (raw + 1) / 2 * column([most[i] - least[i] for i in range(len(times))], x0)  # than the posterior's own
    log = column(least, x0) + wider
    kl = 0.5 * (wider + torch.expm1(-wider) + difference.square() * (-log).exp())
    first = torch.tensor([t == 0 for t in times], device=x0.device).view(-1, *[1] * (x0.ndim - 1))
    bits = torch.where(first, _level_cost(x0, difference, log), kl) / math.log(2)
    return process.steps * bits.flatten(1).mean(1)


def _level_cost(x0: Tensor, difference: Tensor, log: Tensor) -> Tensor:
    """-log of the probability of x0's level under a normal distribution (Ho et al. 2020, equation 13).

    The outer levels extend to infinity. Probabilities are differences of the lower tail, which float32 resolves.
    """
    scale = (-0.5 * log).exp()
    far = -difference.abs()
    inner = _below(scale * (far + BIN)) - _below(scale * (far - BIN))
    outer = _below(scale * (BIN - difference * x0.sign()))
    return -torch.where(x0.abs() > 0.999, outer, inner).clamp(min=_LEAST).log()


def _below(x: Tensor) -> Tensor:
    """P(n < x) of unit normal n; `torch.special.ndtr` is 0 below -5.4 in float32."""
    return 0.5 * torch.erfc(-x / math.sqrt(2))
