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
    """A run that is ready to start: the sampler's arguments, and the data needed to finish the pictures."""

    request: Resolved
    size: Size
    sigmas: tuple[float, ...]
    x: Tensor
    denoise: Callable[[Tensor, float], Tensor]
    noise: Noise
    evaluate: Evaluator
    estimate: Estimate
    """The estimated cost of the run."""
    original: Tensor | None = None
    mask: Tensor | None = None

    def steps(self, taken: Evaluations | None = None) -> Iterator[Step]:
        """The sampler's steps. The network cannot be moved until the iterator is exhausted or closed.

        Args:
            taken: counts the run's network evaluations as it proceeds.

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
        """The grid's arrivals, from the first level of this run."""
        whole = self.request.grid.at_size(self.x.shape[2:]).arrivals(self.evaluate.process, self.request.steps)
        count = len(self.sigmas) - 1
        return None if whole is None else Arrivals(whole.levels[-count:], whole.origins[-count:])

    @property
    def total(self) -> int:
        """Number of transitions of the sampler."""
        return len(self.sigmas) - 1

    @property
    def evaluations(self) -> int:
        """Number of network calls in the run."""
        return self.request.evaluations(len(self.sigmas) - 1)

    @property
    def rows(self) -> int:
        """Maximum batch size of the network: pictures times views."""
        given = [name for name in self.evaluate.names if name not in self.evaluate.absent]
        return self.request.batch * self.request.views(given)

    def again(self, *, sampler: Sampler, grid: Grid, steps: int) -> Prepared:
        """A run with another sampler, grid and number of steps, but the same encoded conditions, guidance and noise.
        Only for runs that start from noise.

        Raises:
            InputError: the grid refuses the number of steps, or its levels do not suit the process.
        """
        if self.request.starts:
            raise ValueError("a run that starts from a picture cannot be prepared again")
        sigmas = tuple(check_levels(grid.at_size(self.x.shape[2:]).sigmas(self.evaluate.process, steps), grid))
        check_range(sigmas, self.evaluate.process, started=False)
        evaluate = self.evaluate.at_levels(sigmas)
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
    """The innermost function inside all wrappers: guidance with its evaluator."""
    while isinstance(denoise, DenoiseWrapper):
        denoise = denoise.denoise
    return cast(Guided, denoise)


class Stream(Iterator[Step]):
    """An iterator over the steps of a run, for one thread at a time. The parts are released when it ends or is closed.

    `close` and `throw` work as for generators.
    """

    def __init__(self, steps: Generator[Step, None, None]) -> None:
        self._generator, self._lock = steps, threading.Lock()

    def __next__(self) -> Step:
        """Compute the next step.

        Raises:
            RunError: `stream-busy`: another thread is computing it.
        """
        return self._alone(self._generator.__next__)

    def close(self) -> None:
        """End the run."""
        self._alone(self._generator.close)

    def throw(self, problem: BaseException) -> Step:
        """Raise an exception at the point where the run is suspended."""
        return self._alone(lambda: self._generator.throw(problem))

    def _alone(self, act: Callable[[], T]) -> T:
        if not self._lock.acquire(blocking=False):
            fits = "one thread per stream, or separate streams"
            raise RunError("stream-busy", "another thread is computing its next step", where="stream", fits=fits)
        try:
            return act()
        finally:
            self._lock.release()


def check_prepared(prepared: object) -> None:
    """Refuse anything that `Pipeline.prepare` did not return.

    Raises:
        InputError: `not-prepared`.
    """
    if not isinstance(prepared, Prepared):
        fits = "the result of Pipeline.prepare"
        raise InputError("not-prepared", f"got {shown(prepared)}", where="prepared", fits=fits)


def check_current(prepared: Prepared, denoiser: Denoiser) -> None:
    """Refuse a run whose network has been moved or converted since it was prepared.

    Raises:
        RunError: `stale-run`.
    """
    made, now = prepared.evaluate.made_for, (denoiser.device, denoiser.dtype)
    if made != now:
        what = f"prepared for {made[1]} on {made[0]}, but the network is now {now[1]} on {now[0]}"
        raise RunError("stale-run", what, where="prepared", fits="prepare it again")
