"""Pseudo linear multistep sampling."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ldmkit import Arrivals, Denoise, Example, Sampler, Step
from ldmkit_samplers.first_order import retaken
from ldmkit_samplers.heun import LONG_STEP, corrected
from ldmkit_samplers.slopes import ADAMS_BASHFORTH, combined, equal_steps


class PLMS(Sampler):
    """Liu et al. 2022 (PNDM) as latent diffusion runs it: one pseudo improved Euler step, then Adams-Bashforth 2, 3, 4.

    The weights are those of equal steps on every grid, which leaves order 2 on grids that are smooth but not even in
    sigma. The first step calls the network twice, unless it goes to sigma 0. Long steps are Euler steps, except for
    the first one, and slopes from before them are not used after them.
    `Step.x0` is x extrapolated to sigma 0 along the combined slope.

    Args:
        long_step: a step is long if sigma / sigma' exceeds this; None: no step is, as in other software.
        combines: "noise" is the published method; "v" extrapolates v = alpha n - alpha sigma x0, without long steps, as
            diffusers' PNDM does for networks that predict v. It exists only to reproduce those pictures: v does not
            change linearly, so the order falls to 1.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(vary={"combines": ("noise",)}),)  # "v" is not of order 2
    order: ClassVar[int | None] = 2
    long_step: float | None = Field(default=LONG_STEP, gt=1)
    combines: Literal["noise", "v"] = "noise"
    revision: Literal[1] = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        if self.combines == "noise":
            return self._along(denoise, x, sigmas)
        return _arriving(denoise, x, sigmas, Arrivals(tuple(sigmas[1:]), tuple(sigmas[:-1])), True)

    def _along(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float]) -> Iterator[Step]:
        count = len(sigmas) - 1
        slopes: deque[Tensor] = deque(maxlen=4)
        for i, row in enumerate(equal_steps(sigmas, self.long_step)):
            sigma, after = sigmas[i], sigmas[i + 1]
            x0 = denoise(x, sigma)
            slopes.appendleft(x - x0)
            moved = combined(x0, slopes, row) if i else corrected(denoise, x, x0, sigma, after, self.long_step)
            x0 = torch.lerp(x, moved, sigma / (sigma - after)) if after else moved
            x = moved
            yield Step(i, count, sigma, after, x, x0)

    def evaluations(self, steps: int) -> int:
        return steps + 1 if steps > 1 else 1

    def arriving(self, arrivals: Arrivals) -> PLMS:
        return _Arriving(long_step=self.long_step, combines=self.combines, revision=self.revision, arrivals=arrivals)


class _Arriving(PLMS):
    arrivals: Arrivals

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        return _arriving(denoise, x, sigmas, self.arrivals, self.combines == "v")


def _arriving(denoise: Denoise, x: Tensor, sigmas: Sequence[float], arrivals: Arrivals, of_v: bool) -> Iterator[Step]:
    """The method for steps that do not arrive at levels of the grid, or that combine v instead of the noise. No step is
    long, as in diffusers. The second call corrects the first step from the origin of the second level."""
    count = len(sigmas) - 1
    values: deque[Tensor] = deque(maxlen=4)
    for i, (sigma, level) in enumerate(zip(sigmas, arrivals.levels, strict=False)):
        after = sigmas[i + 1]
        values.appendleft(_value(x, denoise(x, sigma), sigma, of_v))
        noise = _noise(_mean(values), x, sigma, of_v)
        x0 = x.add(noise, alpha=-sigma)
        moved = x.add(noise, alpha=level - sigma).mul_(retaken(level, after))
        if i == 0 and count > 1:
            mean = torch.lerp(values[0], _value(moved, denoise(moved, after), after, of_v), 0.5)
            origin = arrivals.origins[0]
            start = x.mul(retaken(sigma, origin))
            moved = start.add(_noise(mean, start, origin, of_v), alpha=after - origin)
        x = moved
        yield Step(i, count, sigma, after, x, x0)


def _value(x: Tensor, x0: Tensor, sigma: float, of_v: bool) -> Tensor:
    """The noise in x = x0 + sigma n, or v."""
    noise = (x - x0) / sigma
    return noise.sub_(x0, alpha=sigma).div_(math.sqrt(1 + sigma * sigma)) if of_v else noise


def _noise(value: Tensor, x: Tensor, sigma: float, of_v: bool) -> Tensor:
    """The noise of `_value` at a state."""
    if not of_v:
        return value
    return (value / math.sqrt(1 + sigma * sigma)).add_(x, alpha=sigma / (1 + sigma * sigma))


def _mean(values: Sequence[Tensor]) -> Tensor:
    """Adams-Bashforth with the weights of equal steps, newest first; a new tensor."""
    first, *rest = ADAMS_BASHFORTH[len(values) - 1]
    mean = values[0] * first
    for value, weight in zip(list(values)[1:], rest, strict=True):
        mean.add_(value, alpha=weight)
    return mean
