"""Draws everything that a comparison compares, from one batch of noise and conditions encoded once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from ldmkit_samplers.dpmpp_2m import DPMpp2M
from ldmkit_samplers.grids.sigmas import Exponential, Karras, SigmaGrid
from ldmkit_samplers.unipc import UniPC
from torch import Tensor

from ldmkit import Denoised, DenoiseWrapper, LdmkitError, Need, Pipeline, Sampler, Step, Value
from ldmkit.run.prepared import Prepared
from ldmkit_compare.asked import Entrant
from ldmkit_compare.figures import marginal, psnr, rms, spread
from ldmkit_compare.results import Comparison, DrawnRun, Figures, Reference

TIGHT = 200
"""Steps of the reference and of its check."""

Progress = Callable[[str, int, int], None]
"""Called with what is being drawn, the steps of it that are done, and how many there are."""


@dataclass
class Pictures:
    """Pictures (B,3,H,W) in [0,1]: the reference's, and each run's by sampler and steps."""

    reference: Tensor
    runs: dict[tuple[str, int], Tensor]


@dataclass
class _Counter:
    """Calls of a function, counted; a run that uses its noise is known by it."""

    function: Callable[..., Tensor]
    count: int = 0

    def __call__(self, *arguments: object, **named: object) -> Tensor:
        self.count += 1
        return self.function(*arguments, **named)


class _CountedDenoise(DenoiseWrapper):
    """Calls of `denoise`, counted."""

    count = 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.count += 1
        return super().__call__(x, sigma)

    def estimate(self, x: Tensor, sigma: float, *needs: Need) -> Denoised:
        self.count += 1
        return super().estimate(x, sigma, *needs)

    def started(self) -> Self:
        self.denoise = super().started().denoise  # itself, for its count is read after the run
        return self


@dataclass
class _Ran:
    images: Tensor
    latents: Tensor
    seconds: float
    evaluations: int
    noisy: bool


@dataclass
class Comparing:
    """One comparison.

    Args:
        pipe: the model.
        first: a run of it, prepared: its conditions, noise, guidance and grid serve all others.
        entrants, steps: what is compared.
        tight: steps of the reference.
        progress: on_step of every step.
    """

    pipe: Pipeline
    first: Prepared
    entrants: Sequence[Entrant]
    steps: Sequence[int]
    tight: int = TIGHT
    progress: Progress | None = None
    _pictures: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def run(self, inputs: Mapping[str, str] | None = None) -> tuple[Comparison, Pictures]:
        """Everything, drawn and measured; `inputs` are the conditions in words.

        A run that fails is a row that says so; a reference that fails is an error.

        Raises:
            RunError: the reference failed.
        """
        began, request = time.perf_counter(), self.first.request
        reference, on_step = self._reference()
        runs = tuple(self._one(entrant, number, reference) for entrant in self.entrants for number in self.steps)
        found = Comparison(
            model=self.pipe.origin or "a model in memory",
            inputs=tuple(f"{name}: {value}" for name, value in (inputs or {}).items()),
            seeds=request.seeds,
            size=self.first.size,
            grid=_named(request.grid),
            guidance=_named(request.guidance),
            plan=self.pipe.plan,
            reference=on_step,
            runs=runs,
            seconds=round(time.perf_counter() - began, 3),
        )
        return found, Pictures(reference.images, self._pictures)

    def _reference(self) -> tuple[_Ran, Reference]:
        """Two tight runs over the noise levels that the compared ones visit, by two solvers on two grids."""
        process = self.pipe.process
        grid = self.first.request.grid.at_size(self.first.x.shape[2:])
        highest = max(grid.sigmas(process, number)[0] for number in self.steps)
        limits = {"largest": min(highest, process.sigma_max)}
        ways: tuple[tuple[Sampler, SigmaGrid], ...] = (
            (UniPC(), Exponential.of(limits)),
            (DPMpp2M(), Karras.of(limits)),
        )
        names = [f"{type(s).__name__} with {self.tight} steps on {type(g).__name__.lower()} levels" for s, g in ways]
        prepared = (self.first.again(sampler=sampler, grid=grid, steps=self.tight) for sampler, grid in ways)
        tight, check = (self._ran(one, name) for one, name in zip(prepared, ("reference", "its check"), strict=True))
        half = len(tight.latents) // 2
        return tight, Reference(
            method=names[0],
            second=names[1],
            evaluations=tight.evaluations + check.evaluations,
            seconds=round(tight.seconds + check.seconds, 3),
            doubt=_figures(check, tight),
            halves=marginal(tight.latents[:half], tight.latents[half:]) if half else None,
        )

    def _one(self, entrant: Entrant, steps: int, reference: _Ran) -> DrawnRun:
        named = {"sampler": entrant.name, "steps": steps}
        try:
            prepared = self.first.again(sampler=entrant.sampler, grid=self.first.request.grid, steps=steps)
            ran = self._ran(prepared, f"{entrant.name} {steps}")
            figures = _figures(ran, reference)
        except Exception as error:  # a sampler of somebody else's must not take the others with it
            what = error.what if isinstance(error, LdmkitError) else f"{type(error).__name__}: {error}"
            return DrawnRun.of({**named, "noisy": False, "evaluations": 0, "seconds": 0, "failure": what})
        self._pictures[entrant.name, steps] = ran.images
        timed = {"evaluations": ran.evaluations, "seconds": round(ran.seconds, 3)}
        return DrawnRun.of({**named, "noisy": ran.noisy, **timed, "figures": figures})

    def _ran(self, prepared: Prepared, name: str) -> _Ran:
        denoise, noise = _CountedDenoise(prepared.denoise), _Counter(prepared.noise)
        began = done = time.perf_counter()

        def on_step(step: Step) -> None:
            nonlocal done
            done = time.perf_counter()
            if self.progress is not None:
                self.progress(name, step.index + 1, step.count)

        output = self.pipe.run(replace(prepared, denoise=denoise, noise=noise), on_step)  # type: ignore[arg-type]
        return _Ran(output.images, output.latents, done - began, denoise.count, noise.count > 0)


def _figures(ran: _Ran, reference: _Ran) -> Figures:
    return Figures(
        rms=rms(ran.latents, reference.latents),
        psnr=psnr(ran.images, reference.images),
        marginal=marginal(ran.latents, reference.latents),
        spread=spread(ran.latents, reference.latents),
    )


def _named(value: Value) -> str:
    """A strategy in words: its class and what of its config is not the default."""
    on_step = []
    for key, item in value.model_dump(exclude_defaults=True).items():
        if isinstance(item, dict):
            on_step += [f"{name} {number}" for name, number in item.items()]
        else:
            on_step.append(f"{key} {item}")
    return f"{type(value).__name__} ({', '.join(on_step)})" if on_step else type(value).__name__
