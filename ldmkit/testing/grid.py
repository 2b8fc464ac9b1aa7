"""The contract of grids: the requested number of strictly decreasing levels, or an error that says what would work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from ldmkit.contracts.example import Example
from ldmkit.contracts.grid import Grid
from ldmkit.contracts.process import Process
from ldmkit.errors import InputError, LdmkitError
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import Report, check, expect, fail
from ldmkit.testing.reference import Reference, Stepped
from ldmkit.testing.rng import without_draws

PROCESSES: tuple[Process, ...] = (Reference(), Reference(prediction="flow"), Stepped())
"""Processes: continuous up to 14.6, a flow up to 2^20, and a table of 1000 timesteps."""
COUNTS = range(1, 101)


@dataclass(frozen=True)
class Subject:
    """A grid to be checked."""

    grid: Grid

    @property
    def counts(self) -> list[int]:
        """The numbers of steps to check."""
        own = self.grid.own_steps
        return list(COUNTS) if own is None else [own]


def subject(cls: type[Grid], example: Example) -> Subject:
    """The subject of the checks: a grid's class and one of its examples."""
    return Subject(cls.of(example.config))


def check_grid(cls: type[Grid], config: Mapping[str, Any] | None = None) -> Report:
    """Check a grid with the given fields; None: with those of its examples."""
    return check_class("grid", cls, None if config is None else Example(config))


def _made(subject: Subject) -> list[tuple[Process, int, list[float]]]:
    """All grids that it makes: process, number of steps, noise levels."""
    found = []
    for process in PROCESSES:
        for count in subject.counts:
            try:
                found.append((process, count, subject.grid.sigmas(process, count)))
            except LdmkitError:
                continue
    return found


def _name(process: Process, count: int) -> str:
    kind = "a table of timesteps" if process.timesteps else "a flow" if process.sigma_max > 1e3 else "Reference()"
    return f"{count} steps on {kind}"


@check("grid", "length")
def length(subject: Subject) -> None:
    """N steps give N + 1 noise levels, for every N from 1 to 100 that the grid does not refuse.

    Do not drop or merge steps: the user gets a run other than the requested one. A grid with a fixed number of steps
    (`own_steps`) is checked with that number.
    """
    for process, count, sigmas in _made(subject):
        expect(isinstance(sigmas, list), f"a list for {_name(process, count)}", f"{type(sigmas).__name__}")
        expect(len(sigmas) == count + 1, f"{count + 1} levels for {_name(process, count)}", f"{len(sigmas)}")


@check("grid", "sizes")
def sizes(subject: Subject) -> None:
    """`at_size` returns a grid for latents of any size, and equal grids for equal sizes.

    It is called before every run, for latents of (height, width) cells and for latents of one and three axes. The grids
    that it returns must also satisfy `length` and `decreasing`.
    """
    for size in ((8, 8), (128, 32), (7,), (3, 16, 16), ()):
        found = subject.grid.at_size(size)
        expect(isinstance(found, Grid), f"a Grid for latents of {size}", f"{type(found).__name__}")
        expect(found == subject.grid.at_size(size), f"equal grids for the same latents of {size}", f"{found!r:.100}")
        for process, count, sigmas in _made(Subject(found)):
            good = len(sigmas) == count + 1 and all(a > b for a, b in pairwise(sigmas))
            where = f"{_name(process, count)} with latents of {size}"
            expect(good, f"{count + 1} decreasing levels for {where}", f"{sigmas!r:.120}")


@check("grid", "accepts")
def accepts(subject: Subject) -> None:
    """For some process, the grid accepts at least a quarter of all numbers of steps from 1 to 100.

    Checked on a continuous process, a flow and a table of 1000 timesteps. A grid should refuse what does not fit, but
    one that refuses everything is useless.
    """
    made = [process for process, _, _ in _made(subject)]
    best = max(made.count(process) for process in PROCESSES)
    total = len(subject.counts)
    expect(best >= total / 4, f"at least {math.ceil(total / 4)} of {total} numbers of steps on some process", f"{best}")


@check("grid", "refuses")
def refuses(subject: Subject) -> None:
    """What does not fit raises an `LdmkitError` that says what would: `fits` is not empty.

    For an impossible number of steps, name the nearest possible one; for a process of the wrong kind, the right kind.
    """
    for process in PROCESSES:
        for count in subject.counts:
            try:
                subject.grid.sigmas(process, count)
            except LdmkitError as error:
                expect(bool(error.fits), f"`fits` in the error for {_name(process, count)}", str(error))
            except Exception as error:
                fail(f"an LdmkitError for {_name(process, count)}", f"{type(error).__name__}: {error}")


@check("grid", "decreasing")
def decreasing(subject: Subject) -> None:
    """Noise levels decrease strictly, without duplicates, for every number of steps.

    A duplicate level makes a step of length zero: higher-order solvers divide by the length, and return NaN.
    """
    for process, count, sigmas in _made(subject):
        pair = next(((a, b) for a, b in pairwise(sigmas) if not a > b), None)
        expect(pair is None, f"decreasing levels for {_name(process, count)}", f"{pair}")


@check("grid", "range")
def within(subject: Subject) -> None:
    """Levels are finite, the first is in (0, sigma_max], and only the last may be 0.

    The network was not trained on anything noisier than `sigma_max`.
    """
    for process, count, sigmas in _made(subject):
        where = _name(process, count)
        finite = all(math.isfinite(s) for s in sigmas)
        expect(finite, f"finite levels for {where}", f"{[s for s in sigmas if not math.isfinite(s)][:2]}")
        top = process.sigma_max
        expect(0 < sigmas[0] <= top * (1 + 1e-6), f"a first level of at most {top:.6g} for {where}", f"{sigmas[0]:.6g}")
        low = [s for s in sigmas[:-1] if s <= 0] + [s for s in sigmas[-1:] if s < 0]
        expect(not low, f"levels above 0 before the last one for {where}", f"{low[:2]}")


@check("grid", "host-scalars")
def host_scalars(subject: Subject) -> None:
    """Noise levels are Python floats (float64).

    Samplers compute their coefficients from them; float32 loses the differences between neighbouring levels.
    """
    for process, count, sigmas in _made(subject):
        wrong = [s for s in sigmas if type(s) is not float]
        expect(not wrong, f"floats for {_name(process, count)}", f"{[type(s).__name__ for s in wrong[:1]]}")


@check("grid", "bad-steps")
def bad_steps(subject: Subject) -> None:
    """An invalid number of steps (0, -1, 2.5, True, None) raises an `InputError`.

    Numbers come from command lines and web pages. `range(steps)` alone would give an empty run.
    """
    for steps in (0, -1, 2.5, True, None):
        for process in (PROCESSES[0], PROCESSES[2]):
            try:
                found = subject.grid.sigmas(process, steps)  # type: ignore[arg-type]
            except InputError:
                continue
            except LdmkitError as error:
                if not process.timesteps:
                    continue  # the wrong kind of process may be noticed first
                fail(f"an InputError for {steps!r} steps", str(error))
            except Exception as error:
                fail(f"an InputError for {steps!r} steps", f"{type(error).__name__}: {error}")
            fail(f"an InputError for {steps!r} steps", f"{found}"[:120])


@check("grid", "pure", cause=True)
def pure(subject: Subject) -> None:
    """The same arguments give the same levels, each time in a new list.

    A grid is a value that threads share, and a caller may modify the list that it gets.
    """
    for process in PROCESSES:
        count = subject.counts[min(9, len(subject.counts) - 1)]
        made = partial(subject.grid.sigmas, process, count)
        try:
            first = without_draws(made)
        except LdmkitError:
            continue
        kept = list(first)
        first.clear()
        second = without_draws(made, 2)
        expect(kept == second, f"the same levels twice for {_name(process, count)}", "others, or the same list object")
