"""A run that is ready to start."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from torch import Tensor

from ldmkit.contracts.denoised import DenoiseWrapper, started
from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.grid import Grid
from ldmkit.contracts.sampler import Sampler
from ldmkit.contracts.step import Arrivals, Evaluations, Step
from ldmkit.errors import InputError, RunError, shown
from ldmkit.models.residence import in_use
from ldmkit.run.busy import using
from ldmkit.run.caching import with_cache
from ldmkit.run.denoise import Evaluator, Guided
from ldmkit.run.estimate import Estimate
from ldmkit.run.guards import check_levels, steps_of
from ldmkit.run.levels import check_range
from ldmkit.run.modes import evaluated
from ldmkit.run.noise import Noise
from ldmkit.run.request import Resolved
from ldmkit.run.sizes import Size

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start: everything a sampler is given, and what it takes to finish."""

    request: Resolved
    size: Size
    sigmas: tuple[float, ...]
    x: Tensor
    denoise: Callable[[Tensor, float], Tensor]
    noise: Noise
    evaluate: Evaluator
    estimate: Estimate
    """What it will take."""
    original: Tensor | None = None
    mask: Tensor | None = None

    def steps(self, taken: Evaluations | None = None) -> Iterator[Step]:
        """The sampler's steps; the network stays where it is until they are through, or closed.

        Args:
            taken: filled with what the run takes of the network, step by step.

        Raises:
            RunError: `stale-run`.
        """
        denoiser = self.evaluate.denoiser
        with using([denoiser]), in_use([denoiser]):
            check_current(self, denoiser)
            yield from evaluated([denoiser], self._drawn(Evaluations() if taken is None else taken))

    def _drawn(self, taken: Evaluations) -> Iterator[Step]:
        sampler, arrivals = self.request.sampler, self._arrivals()
        if arrivals is not None:
            sampler = sampler.arriving(arrivals)
        denoise = started(self.denoise)
        innermost(denoise).evaluate.taken = taken
        if self.request.cache is not None:
            denoise = with_cache(denoise, self.request.cache, self.evaluate.process, self.sigmas, taken)
        return steps_of(sampler.steps(denoise, self.x, self.sigmas, self.noise), sampler)

    def _arrivals(self) -> Arrivals | None:
        """Those of the grid, from where this run starts."""
        whole = self.request.grid.at_size(self.x.shape[2:]).arrivals(self.evaluate.process, self.request.steps)
        count = len(self.sigmas) - 1
        return None if whole is None else Arrivals(whole.levels[-count:], whole.origins[-count:])

    @property
    def total(self) -> int:
        """Transitions of the sampler."""
        return len(self.sigmas) - 1

    @property
    def evaluations(self) -> int:
        """How many times the network will be called."""
        return self.request.evaluations(len(self.sigmas) - 1)

    @property
    def rows(self) -> int:
        """Batch of the network at most: pictures times the views that guidance asks for."""
        given = [name for name in self.evaluate.names if name not in self.evaluate.absent]
        return self.request.batch * self.request.views(given)

    def again(self, *, sampler: Sampler, grid: Grid, steps: int) -> Prepared:
        """The same conditions, encoded once, with the same guidance and noise, for another sampler, grid and number of
        steps; a run that starts from noise.

        Raises:
            InputError: what the grid has against it.
        """
        if self.request.starts:
            raise ValueError("a run that starts from a picture is not prepared again")
        sigmas = tuple(check_levels(grid.at_size(self.x.shape[2:]).sigmas(self.evaluate.process, steps), grid))
        check_range(sigmas, self.evaluate.process, started=False)
        evaluate = self.evaluate.over(sigmas)
        return replace(
            self,
            request=replace(self.request, sampler=sampler, grid=grid, steps=steps),
            sigmas=sigmas,
            x=evaluate.process.prior(self.noise(0, "start"), sigmas[0]),
            denoise=Guided(evaluate, self.request.guidance),
            evaluate=evaluate,
            estimate=self.estimate.of_run(steps, replace(self.request, sampler=sampler).evaluations(steps)),
        )


def innermost(denoise: Any) -> Guided:
    """What is within all wrappers: guidance and its evaluator."""
    while isinstance(denoise, DenoiseWrapper):
        denoise = denoise.denoise
    return cast(Guided, denoise)


class Stream(Iterator[Step]):
    """The steps of a run as they are asked for, by one thread at a time; what holds the parts ends with it.

    It closes and takes exceptions as a generator does.
    """

    def __init__(self, steps: Generator[Step, None, None]) -> None:
        self._generator, self._lock = steps, threading.Lock()

    def __next__(self) -> Step:
        """Draw the next step.

        Raises:
            RunError: `stream-busy`: another thread is at it.
        """
        return self._alone(self._generator.__next__)

    def close(self) -> None:
        """End the run: nothing more is drawn."""
        self._alone(self._generator.close)

    def throw(self, problem: BaseException) -> Step:
        """Raise an exception where the run stands."""
        return self._alone(lambda: self._generator.throw(problem))

    def _alone(self, act: Callable[[], T]) -> T:
        if not self._lock.acquire(blocking=False):
            fits = "one thread for a stream, or a stream for each"
            raise RunError("stream-busy", "its next step is being drawn already", where="stream", fits=fits)
        try:
            return act()
        finally:
            self._lock.release()


def check_prepared(prepared: object) -> None:
    """Refuse what `Pipeline.prepare` did not return.

    Raises:
        InputError: `not-prepared`.
    """
    if not isinstance(prepared, Prepared):
        fits = "what Pipeline.prepare returned"
        raise InputError("not-prepared", f"got {shown(prepared)}", where="prepared", fits=fits)


def check_current(prepared: Prepared, denoiser: Denoiser) -> None:
    """Refuse a run whose network has been moved or converted since it was prepared.

    Raises:
        RunError: `stale-run`.
    """
    made, now = prepared.evaluate.made_for, (denoiser.device, denoiser.dtype)
    if made != now:
        what = f"prepared for {made[1]} on {made[0]}, the network is {now[1]} on {now[0]} now"
        raise RunError("stale-run", what, where="prepared", fits="prepare it again")
