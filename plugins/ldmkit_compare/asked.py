"""Parsing of the options of a comparison: samplers with their configs, and numbers of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ldmkit import Grid, InputError, PartSpec, Process, Sampler
from ldmkit.cli.words import parse_strategy
from ldmkit.run.request import strategy
from ldmkit_compare.words import sampler_words

MAX_RUNS = 200
MAX_EVALUATIONS = 50_000


class Entrant(NamedTuple):
    """A sampler, and its name as given, which is used in tables."""

    name: str
    sampler: Sampler


def parse_samplers(text: str, option: str = "--samplers") -> tuple[Entrant, ...]:
    """Parse `euler,ddim:eta=1,my-dist:mine:order=2`: names, qualified if necessary, with configs.

    Raises:
        InputError: `sampler-missing`, `sampler-twice` (two names of one sampler count as such), `strategy-config`.
        SpecError, PluginError: an invalid config, an unknown name.
    """
    found: list[Entrant] = []
    for name in sampler_words(text, option):
        sampler: Sampler = strategy("sampler", parse_strategy(name, option), PartSpec(type=name), Sampler)
        for other in found:
            if type(other.sampler) is type(sampler) and other.sampler == sampler:
                what = f"{other.name!r} and {name!r} are the same sampler"
                raise InputError("sampler-twice", what, where=option, fits="every sampler once")
        found.append(Entrant(name, sampler))
    return tuple(found)


def check_plan(entrants: Sequence[Entrant], steps: Sequence[int], grid: Grid, process: Process, extra: int) -> int:
    """The number of network calls, including `extra` calls for the reference; also checks that all grids can be made.

    Raises:
        InputError: `compare-size`; and the grid's error for a number of steps.
    """
    runs = len(entrants) * len(steps)
    if runs > MAX_RUNS:
        what = f"{len(entrants)} samplers with {len(steps)} numbers of steps are {runs} runs"
        raise InputError("compare-size", what, where="--steps", fits=f"at most {MAX_RUNS} runs")
    calls = extra + sum(entrant.sampler.evaluations(number) for entrant in entrants for number in steps)
    if calls > MAX_EVALUATIONS:
        what = f"the network would be called {calls} times"
        raise InputError("compare-size", what, where="--steps", fits=f"at most {MAX_EVALUATIONS} calls")
    for number in steps:
        grid.sigmas(process, number)
    return calls
