"""The contract of caches: the first call is a real one, state is kept per run and per row, and calls are counted.

They are checked around a `denoise` that is a plain function of state and noise level, in a run of sixteen levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.cache import Cache
from ldmkit.contracts.example import Example
from ldmkit.testing.batches import close, differ, same
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import Report, check, expect
from ldmkit.testing.reference import Reference

SIGMAS = (*(14.0 * 0.7**i for i in range(16)), 0.0)
ROWS = 3


@dataclass(frozen=True)
class Subject:
    """A cache to be checked."""

    cache: Cache


@dataclass
class Model:
    """A `denoise` that counts its calls: it shrinks the state towards a fixed one, less so at low noise."""

    calls: int = 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        share = sigma**2 / (1 + sigma**2)
        return (1 - share) * x + share * torch.tanh(x)


def subject(cls: type[Cache], example: Example) -> Subject:
    """The subject of the checks: a cache's class and one of its examples."""
    return Subject(cls.of(example.config))


def check_cache(cls: type[Cache], config: Mapping[str, Any] | None = None) -> Report:
    """Check a cache with the given fields; None: with those of its examples."""
    return check_class("cache", cls, None if config is None else Example(config))


def _start(rows: int = ROWS, seed: int = 0) -> Tensor:
    """States whose rows change at different speeds."""
    x = torch.randn(rows, 2, 4, 4, generator=torch.Generator().manual_seed(seed))
    return x * torch.tensor([14.0, 9.0, 30.0])[:rows, None, None, None]


def _states(x: Tensor) -> list[Tensor]:
    """The states of an ideal run: each shrinks with the noise level, by a different rule in every row."""
    powers = torch.tensor([1.0, 0.8, 1.3])[: len(x), None, None, None]
    return [x * (sigma / SIGMAS[0]) ** powers for sigma in SIGMAS[:-1]]


def _run(subject: Subject, states: list[Tensor]) -> tuple[list[Tensor], int]:
    """Estimates of a run, and how often the model was called."""
    model = Model()
    denoise = subject.cache.around(model, Reference(), SIGMAS)
    return [denoise(x, sigma) for x, sigma in zip(states, SIGMAS, strict=False)], model.calls


@check("cache", "estimates")
def estimates(subject: Subject) -> None:
    """Each estimate is finite, has the state's shape and dtype, and shares no memory; the state is not written to.

    Samplers keep estimates and states over several steps.
    """
    states = _states(_start())
    before = [x.clone() for x in states]
    made, _ = _run(subject, states)
    for x, found, was in zip(states, made, before, strict=True):
        expect(isinstance(found, Tensor) and found.shape == x.shape, f"a tensor of {tuple(x.shape)}", f"{type(found)}")
        expect(found.dtype == x.dtype and bool(found.isfinite().all()), f"finite {x.dtype}", f"{found.dtype}")
        expect(torch.equal(x, was), "the state unchanged", "it was written to")
    places = {found.data_ptr() for found in made}
    expect(len(places) == len(made), f"{len(made)} estimates in separate memory", f"{len(places)} distinct")


@check("cache", "first-call")
def first_call(subject: Subject) -> None:
    """The first call of a run calls the network, bit for bit, and so does a call after the noise level has risen.

    Samplers that add noise go back up; values cached at lower noise are not valid for such a state.
    """
    states = _states(_start())
    model = Model()
    denoise = subject.cache.around(model, Reference(), SIGMAS)
    same([denoise(states[2], SIGMAS[2])], [Model()(states[2], SIGMAS[2])], "the first estimate")
    denoise(states[3], SIGMAS[3])
    same([denoise(states[0], SIGMAS[0])], [Model()(states[0], SIGMAS[0])], "the estimate at a level above the last")


@check("cache", "runs-apart")
def runs_apart(subject: Subject) -> None:
    """Runs share no state: consecutive and interleaved runs give what each gives alone.

    `around` creates the state of a run. State on the cache object, which pipelines and threads share, leaks into other
    runs.
    """
    runs = [_states(_start(seed=seed)) for seed in (0, 1)]
    alone = [_run(subject, states)[0] for states in runs]
    same(_run(subject, runs[0])[0], alone[0], "a second run")
    turns = [subject.cache.around(Model(), Reference(), SIGMAS) for _ in runs]
    made: list[list[Tensor]] = [[], []]
    for i, sigma in enumerate(SIGMAS[:-1]):
        for number, denoise in enumerate(turns):
            made[number].append(denoise(runs[number][i], sigma))
    for number in (0, 1):
        same(made[number], alone[number], f"run {number}, interleaved with another")


@check("cache", "rows-apart")
def rows_apart(subject: Subject) -> None:
    """A picture is the same alone and in a batch, up to rounding: decisions are made per row.

    A decision for the whole batch (by a mean over it, or its first row) makes pictures depend on others in the batch.
    """
    states = _states(_start())
    whole, _ = _run(subject, states)
    for row in range(ROWS):
        alone, _ = _run(subject, [x[row : row + 1] for x in states])
        close([found[row : row + 1] for found in whole], alone, f"row {row} of a batch, and alone")


@check("cache", "saves")
def saves(subject: Subject) -> str:
    """It never calls the network more often than it is called itself, and `evaluations` is at most its argument.

    Examples must save calls in a run of sixteen calls of one row, unless they are off (`evaluations` returns its
    argument, and each estimate is the network's own).
    """
    states = [x[:1] for x in _states(_start())]
    made, calls = _run(subject, states)
    total = len(states)
    expect(1 <= calls <= total, f"1 to {total} calls", f"{calls}")
    for asked in (1, 2, total):
        said = subject.cache.evaluations(asked)
        expect(type(said) is int and 1 <= said <= asked, f"evaluations({asked}) of 1 to {asked}", f"{said!r}")
    own = [Model()(x, sigma) for x, sigma in zip(states, SIGMAS, strict=False)]
    if calls == total:
        same(made, own, "estimates of a cache that is off")
    else:
        expect(differ(made, own), "estimates that differ from the network's where it was not called", "the same")
    return f"{calls} of {total} calls"
