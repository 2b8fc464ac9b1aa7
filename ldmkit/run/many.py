"""Streaming of many requests: in order and in bounded memory, with compatible requests batched together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldmkit.bounds import MAX_BATCH
from ldmkit.contracts.arguments import mapping_of
from ldmkit.contracts.value import integer
from ldmkit.errors import InputError, LdmkitError, shown
from ldmkit.models.composed import Composed
from ldmkit.run.output import Output
from ldmkit.run.prepare import Asked, ask

MAPPING = "a mapping of a call's arguments"

AHEAD = 4
"""Number of batches of requests to read ahead when looking for compatible ones."""


@dataclass(frozen=True)
class Drawn:
    """The result of one request of `Pipeline.many`.

    Args:
        index: index of the request, from 0.
        request: the request as given.
        output: its picture, which shares no memory with others; None if there is an error.
        error: the error of the request or of its run, if any.
    """

    index: int
    request: Any
    output: Output | None
    error: LdmkitError | None = None


@dataclass
class _Waiting:
    """A request that has been read, the settings that it must share with others of its batch, and its result."""

    index: int
    given: Any
    asked: Asked | None = None
    shared: Mapping[str, Any] | None = None
    drawn: Drawn | None = None

    def fails(self, error: LdmkitError) -> None:
        self.drawn = Drawn(self.index, self.given, None, error)

    def goes_with(self, other: _Waiting) -> bool:
        """Whether both can be rows of one batch, i.e. differ only in inputs, seeds and start data."""
        return self.drawn is None and self.shared == other.shared


def draw_many(
    pipeline: Composed, draw: Callable[[Asked], Output], requests: Iterable[Any], batch: int, common: Mapping[str, Any]
) -> Iterator[Drawn]:
    """See `Pipeline.many`; `draw` draws a call that was understood."""
    number = integer(batch)
    if number is None or not 1 <= number <= MAX_BATCH:
        fits = f"pictures per batch, 1 to {MAX_BATCH}"
        raise InputError("batch-size", f"got {shown(batch)}", where="batch", fits=fits)
    return _stream(pipeline, draw, iter(requests), number, dict(common))


def _stream(
    pipeline: Composed, draw: Callable[[Asked], Output], requests: Iterator[Any], batch: int, common: dict[str, Any]
) -> Iterator[Drawn]:
    waiting: deque[_Waiting] = deque()
    count, ended, problem = 0, False, None
    while True:
        while not ended and len(waiting) < AHEAD * batch:
            try:
                given = next(requests)
            except StopIteration:
                ended = True
            except Exception as error:  # raised after the requests already read have been drawn
                ended, problem = True, error
            else:
                waiting.append(_read(pipeline, count, given, common))
                count += 1
        if not waiting:
            break
        first = waiting[0]
        if first.drawn is None:
            _draw(draw, [one for one in waiting if one.goes_with(first)][:batch])
        drawn = waiting.popleft().drawn
        assert drawn is not None, "it was drawn, or failed"
        yield drawn
    if problem is not None:
        raise problem


def ask_one(pipeline: Composed, given: Any, common: Mapping[str, Any], where: str) -> Asked:
    """One request of `Pipeline.many`, resolved and checked.

    Raises:
        InputError: `batch-mismatch`: it asks for several pictures; `argument-twice`: a seed and seeds; and the errors
            of a call.
    """
    if given is None:
        raise InputError("not-a-mapping", "got None", where=where, fits=MAPPING)
    own = _without_twins(mapping_of(given, where, MAPPING), where)
    shared = _without_twins(common, "common")
    if "seed" in own or "seeds" in own:  # each stands in for the other
        shared = {name: value for name, value in shared.items() if name not in ("seed", "seeds")}
    options = {**shared, **own}
    if "seed" in options:
        options["seeds"] = [options.pop("seed")]
    asked = ask(pipeline, options.pop("inputs", {}), options)
    if asked.request.batch != 1:
        fits = "one picture per request: one mapping of inputs, and `seed`"
        raise InputError("batch-mismatch", f"it asks for {asked.request.batch} pictures", where=where, fits=fits)
    return asked


def _without_twins(options: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    if "seed" in options and "seeds" in options:
        what = "both `seed` and `seeds` are given"
        raise InputError("argument-twice", what, where=where, fits="seed=5, or seeds=[5]")
    return options


def _read(pipeline: Composed, index: int, given: Any, common: Mapping[str, Any]) -> _Waiting:
    one = _Waiting(index, given)
    try:
        asked = ask_one(pipeline, given, common, f"requests[{index}]")
    except LdmkitError as error:
        one.fails(error)
        return one
    one.asked, request = asked, asked.request
    one.shared = {
        "size": asked.size, "steps": request.steps, "sampler": request.sampler, "grid": request.grid,
        "guidance": request.guidance, "cache": request.cache, "propose": request.propose, "allow_large": asked.large,
        "given": (frozenset(request.inputs[0]), frozenset(request.negative[0])),
        "start": [(start.strength, start.mask is None, start.noised) for start in request.starts],
    }  # fmt: skip
    return one


def _draw(draw: Callable[[Asked], Output], group: Sequence[_Waiting]) -> None:
    """Draw requests in one batch; if that fails, draw each separately, so that only the faulty ones fail."""
    try:
        output = draw(Asked.joined([one.asked for one in group if one.asked is not None]))
    except LdmkitError as error:
        if len(group) == 1:
            group[0].fails(error)
            return
        for one in group:
            _draw(draw, [one])
        return
    for row, one in enumerate(group):
        one.drawn, one.asked = Drawn(one.index, one.given, output.row(row)), None
