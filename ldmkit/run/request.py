"""Validation of the arguments of a call; does not use weights or change the pipeline."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeAlias

from ldmkit.bounds import MAX_NUMBER
from ldmkit.contracts.arguments import check_scale, check_seed, check_sides, guarded, list_of, mapping_of
from ldmkit.contracts.arguments import check_steps as check_steps
from ldmkit.contracts.axes import PICTURE, Size
from ldmkit.contracts.cache import Cache
from ldmkit.contracts.codec import Codec
from ldmkit.contracts.grid import Grid
from ldmkit.contracts.guidance import Guidance
from ldmkit.contracts.sampler import Sampler
from ldmkit.contracts.value import Value, integer
from ldmkit.errors import InputError, shown
from ldmkit.files.numbers import listed, plain
from ldmkit.models.compose import build_value
from ldmkit.models.spec import Defaults, PartSpec
from ldmkit.plugins.catalogue import components
from ldmkit.run.extraction import Extractions
from ldmkit.run.starts import Begun, Start, starts_of

Inputs: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]
Strategy: TypeAlias = str | Value | type[Value] | PartSpec | Mapping[str, Any] | Sequence[float] | None

Starting: TypeAlias = Any
"""The `start` argument; see `ldmkit.run.starts.starts_of`."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a call asks for besides its inputs, checked; a seed and a start for each picture.

    Args:
        starts: one a picture; (): from noise.
        cache: what answers some calls of the network from earlier ones; None: nothing.
        extracted, negative_extracted: what hints were made of, a mapping for each picture; (): no hints were made.
        rewritten: prompts that were rewritten, a mapping for each picture; (): none were.
    """

    seeds: tuple[int, ...]
    steps: int
    starts: tuple[Start, ...]
    sampler: Sampler
    grid: Grid
    guidance: Guidance
    cache: Cache | None = None
    extracted: Extractions = ()
    negative_extracted: Extractions = ()
    rewritten: tuple[Mapping[str, Any], ...] = ()

    @property
    def strength(self) -> float:
        """Fraction of the steps that are run; 1 for runs that start from noise."""
        return self.starts[0].strength if self.starts else 1.0

    @property
    def batch(self) -> int:
        """Number of pictures."""
        return len(self.seeds)

    def evaluations(self, steps: int) -> int:
        """Expected number of network calls in a run of `steps` steps."""
        calls = self.sampler.evaluations(steps)
        return calls if self.cache is None else self.cache.evaluations(calls)

    def views(self, names: Sequence[str]) -> int:
        """Network rows per picture: the views of guidance, and the unconditional view if the sampler needs it.

        Args:
            names: optional conditions that are given.
        """
        views = self.guidance.views(names)
        plain = views - self.guidance.perturbed(names)
        needed = 2 if names and "unconditional" in self.sampler.needs else 1
        return views + max(needed - plain, 0)


@dataclass(frozen=True, kw_only=True)
class Request(Choices):
    """One call as it was made: inputs and negative inputs are raw, a mapping for each picture.

    Args:
        size: that was asked for; None: the model's, or that of an input.
        start_size: size of the pictures that are started from, where their latents do not say it.
        propose: whether conditioners may make up inputs that the caller left out (`Conditioner.propose`).
    """

    inputs: tuple[Mapping[str, Any], ...]
    negative: tuple[Mapping[str, Any], ...]
    size: Size | None
    start_size: Size | None
    propose: bool = True


@dataclass(frozen=True, kw_only=True)
class Resolved(Choices):
    """One call as it is run, and as recipes hold it: inputs and negative inputs are parsed, a mapping for each picture.

    Args:
        proposed: inputs that conditioners made up, parsed, a mapping for each picture.
    """

    inputs: tuple[Mapping[str, Any], ...]
    negative: tuple[Mapping[str, Any], ...]
    proposed: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, choices: Choices, **parsed: Any) -> Resolved:
        """What a request chose, with parsed inputs in the place of its raw ones."""
        return cls(**{one.name: getattr(choices, one.name) for one in fields(Choices)}, **parsed)


def resolve(
    defaults: Defaults,
    inputs: Inputs,
    *,
    negative: Inputs | None = None,
    size: int | Size | None = None,
    seeds: Sequence[int] | int = (0,),
    steps: int | None = None,
    start: Starting = None,
    sampler: Strategy = None,
    grid: Strategy = None,
    guidance: Strategy | float = None,
    propose: bool = True,
    cache: Strategy = None,
    codec: Codec | None = None,
) -> Request:
    """Validate a call's arguments; strategies may be names, values, specs or (for guidance) numbers. `codec` is the
    pipeline's codec, which determines the axes of sizes and whether latents of an output can be used directly.

    Raises:
        InputError: with the name of the argument.
        PluginError: unknown strategy names.
    """
    rows, all_seeds = pair(inputs, seeds)
    negatives = mappings({} if negative is None else negative, "negative")
    begun = () if start is None else starts_of(start, codec)
    count = max(len(rows), len(negatives), len(begun))
    for where, what, many in (("negative", "negatives", len(negatives)), ("start", "starts", len(begun) or 1)):
        if many not in (1, count) or (many == count and len(rows) not in (1, count)):
            fits = "one, or one for each picture"
            pictures = count if many != count else len(rows)
            raise InputError("batch-mismatch", f"{many} {what} for {pictures} pictures", where=where, fits=fits)
    rows, all_seeds = rows * (count // len(rows)), all_seeds * (count // len(rows))
    visited: Grid = strategy("grid", grid, defaults.grid, Grid)
    return Request(
        inputs=rows,
        negative=negatives * (count // len(negatives)),
        seeds=all_seeds,
        steps=_steps(visited, steps, defaults.steps),
        size=None if size is None else check_sides(size, MAX_NUMBER, PICTURE if codec is None else codec.axes),
        starts=tuple(one.start for one in begun) * (count // len(begun)) if begun else (),
        start_size=_one_size(begun),
        sampler=strategy("sampler", sampler, defaults.sampler, Sampler),
        grid=visited,
        guidance=strategy("guidance", _scaled(guidance), defaults.guidance, Guidance),
        propose=_switch(propose),
        cache=None if cache is None else strategy("cache", cache, PartSpec(type="interval"), Cache),
    )


def _one_size(begun: Sequence[Begun]) -> Size | None:
    sizes = {one.size for one in begun if one.size is not None}
    if len(sizes) > 1:
        raise InputError("picture-sizes", "outputs of different sizes", where="start", fits="pictures of the same size")
    return next(iter(sizes), None)


def pair(inputs: Inputs, seeds: Sequence[int] | int) -> tuple[tuple[Mapping[str, Any], ...], tuple[int, ...]]:
    """One mapping and one seed per picture; a single mapping or seed is repeated.

    Raises:
        InputError: empty, not mappings, or lists of different lengths.
    """
    rows, checked = mappings(inputs, "inputs"), check_seeds(seeds)
    if len(rows) > 1 and len(checked) > 1 and len(rows) != len(checked):
        what = f"{len(rows)} inputs, but {len(checked)} seeds"
        raise InputError("batch-mismatch", what, where="seeds", fits="one seed, or one for each input")
    count = max(len(rows), len(checked))
    return rows * (count // len(rows)), checked * (count // len(checked))


def check_seeds(seeds: object) -> tuple[int, ...]:
    """Seeds as a tuple, from one seed or a list.

    Raises:
        InputError: `seed-type`, `seed-range`, `empty-batch`.
    """
    one = integer(seeds)
    numbers = list_of(seeds, "seeds", "seed-type", "an integer, or a list of them") if one is None else [one]
    if not numbers:
        raise InputError("empty-batch", "the list of seeds is empty", where="seeds")
    return tuple(check_seed(s, f"seeds[{i}]") for i, s in enumerate(numbers))


def mappings(given: Inputs, where: str) -> tuple[Mapping[str, Any], ...]:
    """One mapping, or a list of them, as a tuple.

    Raises:
        InputError: `not-a-mapping`, `empty-batch`.
    """
    fits = "a mapping from input name to value, or a list of them"
    fits += ': {"text": "a red house"}' if isinstance(given, str) else ""
    if not isinstance(given, (Mapping, list, tuple)):
        raise InputError("not-a-mapping", f"got {type(given).__name__}", where=where, fits=fits)
    items = [given] if isinstance(given, Mapping) else list_of(given, where, "not-a-mapping", fits)
    rows: dict[int, Mapping[str, Any]] = {}  # by identity, so that a mapping shared by many rows is parsed once
    for i, row in enumerate(items):
        if not isinstance(row, Mapping):
            raise InputError("not-a-mapping", f"got {type(row).__name__}", where=f"{where}[{i}]", fits=fits)
        if id(row) not in rows:
            rows[id(row)] = guarded(partial(dict, row), where if items[0] is given else f"{where}[{i}]", fits)
    if not rows:
        raise InputError("empty-batch", f"the list of {where} is empty", where=where)
    return tuple(rows[id(row)] for row in items)


def length(given: object) -> int:
    """Number of rows of an argument; 1 for anything but a list, which is checked later."""
    if isinstance(given, (str, bytes, Mapping)) or not hasattr(given, "__len__"):
        return 1
    try:
        return len(given)
    except OverflowError:  # larger than sys.maxsize
        return sys.maxsize
    except Exception:  # a tensor without axes, or a faulty __len__
        return 1


def strategy(kind: str, given: Strategy, default: PartSpec | None, contract: type[Any]) -> Any:
    """A sampler, grid, guidance, cache or extractor from a name, a value or a spec; None gives the default, if any.

    Raises:
        InputError: another type.
        SpecError: an invalid config.
        PluginError: an unknown name.
    """
    if given is None and default is not None:
        return build_value(kind, default)
    if isinstance(given, type) and issubclass(given, contract):
        return given.of({}, kind)
    if isinstance(given, contract):
        return given
    if kind == "grid" and isinstance(given := listed(given), (list, tuple)):
        given = PartSpec(type="explicit", config={"values": given})
    if isinstance(given, str):
        given = PartSpec(type=given)
    if isinstance(given, Mapping):
        own: dict[str, Any] = guarded(partial(dict, given), kind)
        given = PartSpec.of(_nested(own), kind) if isinstance(own.get("type"), str) else own
    if isinstance(given, PartSpec):
        return build_value(kind, given)
    fits = f"a name ({', '.join(components(kind))}), a {contract.__name__} value, or {{'type': ..., 'config': ...}}"
    raise InputError("strategy-type", f"got {shown(given)}", where=kind, fits=fits)


def _steps(grid: Grid, asked: int | None, default: int) -> int:
    """The number of steps: the requested one, or for None the grid's fixed number or the model's default."""
    own = grid.own_steps
    if asked is None:
        return check_steps(default if own is None else own, MAX_NUMBER)
    steps = check_steps(asked, MAX_NUMBER)
    if own is not None and steps != own:
        fits = f"{own} steps, or omit steps"
        raise InputError("grid-length", f"{steps} steps, but the grid has {own}", where="steps", fits=fits)
    return steps


def _nested(given: Mapping[str, Any]) -> dict[str, Any]:
    """{"type": "ddim", "eta": 1} as {"type": "ddim", "config": {"eta": 1}}; the latter form is left unchanged."""
    if "config" in given:
        return dict(given)
    own = {key: value for key, value in given.items() if key in PartSpec.model_fields}
    return {**own, "config": {key: value for key, value in given.items() if key not in own}}


def _scaled(guidance: Strategy | float) -> Strategy:
    """A number as classifier-free guidance of that scale; a mapping of numbers as one scale per condition."""
    guidance = plain(guidance)
    if isinstance(guidance, bool):
        raise InputError("strategy-type", f"got {shown(guidance)}", where="guidance", fits="a scale, a name or a value")
    if isinstance(guidance, (int, float)):
        check_scale(guidance, "guidance")
        return PartSpec(type="cfg", config={"scale": float(guidance)})
    if isinstance(guidance, Mapping):
        guidance = guarded(partial(dict, guidance), "guidance")
    if isinstance(guidance, dict) and guidance and all(_is_number(v) for v in guidance.values()):
        guidance = mapping_of(guidance, "guidance", "condition name -> scale")
        for name, scale in guidance.items():
            check_scale(scale, f"guidance.{name}")
        return PartSpec(type="per-condition", config={"scales": {k: float(v) for k, v in guidance.items()}})
    return guidance


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise InputError("propose-type", f"got {shown(value)}", where="propose", fits="True or False")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
