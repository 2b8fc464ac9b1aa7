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
    """See `Pipeline.many`; `draw` runs a checked call."""
    return _stream(pipeline, draw, iter(requests), _checked_batch(batch), dict(common))


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
    inputs, options = call_of(given, common, where)
    asked = ask(pipeline, inputs, options)
    if asked.request.batch != 1:
        fits = "one picture per request: one mapping of inputs, and `seed`"
        raise InputError("batch-mismatch", f"it asks for {asked.request.batch} pictures", where=where, fits=fits)
    return asked


def _check_seed_once(options: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    if "seed" in options and "seeds" in options:
        what = "both `seed` and `seeds` are given"
        raise InputError("argument-twice", what, where=where, fits="seed=5, or seeds=[5]")
    return options


def call_of(given: Any, common: Mapping[str, Any], where: str) -> tuple[Any, dict[str, Any]]:
    """The inputs and the other arguments of the call that a request describes.

    Raises:
        InputError: `not-a-mapping`; `argument-twice`: a seed and seeds.
    """
    if given is None:
        raise InputError("not-a-mapping", "got None", where=where, fits=MAPPING)
    own = _check_seed_once(mapping_of(given, where, MAPPING), where)
    shared = _check_seed_once(common, "common")
    if "seed" in own or "seeds" in own:  # either one overrides both
        shared = {name: value for name, value in shared.items() if name not in ("seed", "seeds")}
    options = {**shared, **own}
    if "seed" in options:
        options["seeds"] = [options.pop("seed")]
    return options.pop("inputs", {}), options


def draw_in_turn(
    draw: Callable[..., Output], requests: Iterable[Any], batch: int, common: Mapping[str, Any]
) -> Iterator[Drawn]:
    """Draw requests in order; consecutive ones that differ only in inputs and seeds share a batch.

    For models whose requests cannot be checked before they run, unlike those of `draw_many`.
    """
    number = _checked_batch(batch)
    group: list[tuple[int, Any, Any, dict[str, Any]]] = []
    for index, given in enumerate(requests):
        try:
            one = (index, given, *call_of(given, common, f"requests[{index}]"))
        except LdmkitError as error:
            yield from _drawn_group(draw, group)
            group = []
            yield Drawn(index, given, None, error)
            continue
        if group and (len(group) == number or not _alike(group[0][2:], one[2:])):
            yield from _drawn_group(draw, group)
            group = []
        group.append(one)
    yield from _drawn_group(draw, group)


def _alike(one: tuple[Any, dict[str, Any]], other: tuple[Any, dict[str, Any]]) -> bool:
    """Whether two calls can be combined in one batch, as far as their arguments show."""
    rest = [{key: value for key, value in options.items() if key != "seeds"} for _, options in (one, other)]
    seeds = [options.get("seeds") for _, options in (one, other)]
    if not all(isinstance(inputs, Mapping) for inputs, _ in (one, other)) or one[0].keys() != other[0].keys():
        return False
    try:
        return all(isinstance(given, list) and len(given) == 1 for given in seeds) and bool(rest[0] == rest[1])
    except Exception:  # tensors cannot be compared by ==
        return False


def _drawn_group(draw: Callable[..., Output], group: Sequence[tuple[int, Any, Any, dict[str, Any]]]) -> Iterator[Drawn]:
    if not group:
        return
    inputs = [one[2] for one in group]
    options = dict(group[0][3])
    if len(group) > 1:
        options["seeds"] = [seed for one in group for seed in one[3]["seeds"]]
    try:
        output = draw(inputs if len(group) > 1 else inputs[0], **options)
        if len(output.images) != len(group):
            fits = "one picture per request: one mapping of inputs, and `seed`"
            raise InputError(
                "batch-mismatch", f"it asks for {len(output.images)} pictures", where="requests", fits=fits
            )
    except LdmkitError as error:
        if len(group) == 1:
            yield Drawn(group[0][0], group[0][1], None, error)
            return
        for one in group:
            yield from _drawn_group(draw, [one])
        return
    for row, one in enumerate(group):
        yield Drawn(one[0], one[1], output.row(row))


def _checked_batch(batch: object) -> int:
    number = integer(batch)
    if number is None or not 1 <= number <= MAX_BATCH:
        fits = f"pictures per batch, 1 to {MAX_BATCH}"
        raise InputError("batch-size", f"got {shown(batch)}", where="batch", fits=fits)
    return number


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
