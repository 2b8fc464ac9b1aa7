"""The recipe of a picture: everything needed to reproduce it, as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from ldmkit.contracts.arguments import path_of
from ldmkit.contracts.value import Value
from ldmkit.errors import InputError, LdmkitError, SourceError
from ldmkit.files.json import parse_json
from ldmkit.models.composed import Composed
from ldmkit.models.spec import PartSpec
from ldmkit.models.updates import ADAPTER, OPTIONS, plain_config
from ldmkit.plugins.catalogue import find, name_of, registered_name
from ldmkit.run.extraction import Extractions
from ldmkit.run.request import Resolved
from ldmkit.run.starts import Start
from ldmkit.run.written import stored_recipe
from ldmkit.version import VERSION

RECIPE_VERSION = 1


class Model(Protocol):
    """The properties of a pipeline or cascade that a recipe records."""

    @property
    def origin(self) -> str | None:
        """The source argument for `ldmkit.load`."""

    @property
    def load_options(self) -> dict[str, Any]:
        """The other arguments of that `ldmkit.load`."""

    @property
    def merged(self) -> tuple[str, ...]:
        """Names of the adapters fused into the weights."""

    @property
    def part_specs(self) -> dict[str, PartSpec]:
        """Part path -> spec, for every part."""

    @property
    def spec(self) -> Any:
        """The spec, whose `hash` is recorded."""


def make_recipes(pipeline: Composed, request: Resolved, size: Sequence[int]) -> tuple[dict[str, Any], ...]:
    """One recipe per picture of a call."""
    spec = pipeline.spec
    common: dict[str, Any] = {
        "recipe": RECIPE_VERSION,
        "ldmkit": VERSION,
        "torch": torch.__version__,
        "model": pipeline.origin,
        "load": pipeline.load_options,
        "plan": pipeline.plan,
        "spec": spec.hash,
        "parts": part_versions(pipeline),
        "steps": request.steps,
        "size": list(size),
        "start": None,
        "sampler": _strategy("sampler", request.sampler),
        "grid": _strategy("grid", request.grid),
        "guidance": _strategy("guidance", request.guidance),
    }
    starts = _starts(request.starts) or [None] * request.batch
    if request.cache is not None:
        common["cache"] = _strategy("cache", request.cache)
    if pipeline.merged:
        common["fused"] = list(pipeline.merged)
    if pipeline.rounded:
        common["placed"] = {path: dict(fields) for path, fields in pipeline.rounded.items()}
    if pipeline.updates:
        common["updates"] = [_update(pipeline, one) for one in pipeline.updates]
    inputs = _written(pipeline, request.inputs, request.extracted)
    negatives = _written(pipeline, request.negative, request.negative_extracted)
    recipes = [
        {**common, "start": start, "inputs": row, "negative": negative, "seed": seed}
        for row, negative, seed, start in zip(inputs, negatives, request.seeds, starts, strict=True)
    ]
    for recipe, made_up in zip(recipes, request.proposed, strict=True):
        if made_up:
            recipe["proposed"] = _dump(pipeline, made_up)
    for recipe, revisions in zip(recipes, request.rewritten or ({},) * len(recipes), strict=True):
        if revisions:
            recipe["rewritten"] = {name: one.written() for name, one in revisions.items()}
            recipe["revised_prompt"] = revisions.get("text", next(iter(revisions.values()))).revised
    return tuple(recipes)


def only_recipe(recipes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The one recipe of a call for one picture.

    Raises:
        InputError: `batch-mismatch`.
    """
    if len(recipes) != 1:
        fits = "one picture: one mapping of inputs, and `seed`"
        raise InputError("batch-mismatch", f"it asks for {len(recipes)} pictures", where="inputs", fits=fits)
    return recipes[0]


class StageRun(NamedTuple):
    """A stage of a cascade that was run, with its request as recorded in recipes."""

    name: str
    pipeline: Composed
    request: Resolved
    size: tuple[int, ...]
    handed: tuple[tuple[str, str], ...] = ()
    """(input, field) of what other stages made in it."""


_COMMON = ("recipe", "ldmkit", "torch", "model", "load", "parts")
"""The keys of a recipe that the stages of a cascade share."""


def make_cascade_recipes(model: Model, seeds: Sequence[int], runs: Sequence[StageRun]) -> tuple[dict[str, Any], ...]:
    """One recipe per picture of a cascade's call, with those of its stages but without the data that they exchange."""
    made = [make_recipes(run.pipeline, run.request, run.size) for run in runs]
    count = len(made[-1])
    common: dict[str, Any] = {
        "recipe": RECIPE_VERSION, "ldmkit": VERSION, "torch": torch.__version__,
        "model": model.origin, "load": model.load_options, "spec": model.spec.hash, "parts": part_versions(model),
        "first": runs[0].name, "last": runs[-1].name,
    }  # fmt: skip
    if model.merged:
        common["fused"] = list(model.merged)
    stages = [
        {run.name: _of_stage(recipes[i], run.handed) for run, recipes in zip(runs, made, strict=True)}
        for i in range(count)
    ]
    every = seeds if len(seeds) == count else [*seeds] * count
    return tuple({**common, "seed": seed, "stages": own} for seed, own in zip(every, stages, strict=True))


def _of_stage(recipe: Mapping[str, Any], handed: Sequence[tuple[str, str]]) -> dict[str, Any]:
    own = {key: value for key, value in recipe.items() if key not in _COMMON}
    for name, field in handed:
        value = {key: inner for key, inner in own["inputs"][name].items() if key != field}
        own["inputs"] = {**own["inputs"], name: value}
    return own


def calls_of(recipe: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Stage name -> recipe of its call; "" for the single call of a pipeline."""
    stages = recipe.get("stages")
    return dict(stages) if isinstance(stages, Mapping) else {"": recipe}


def part_versions(pipeline: Model) -> dict[str, str]:
    """Part path -> `type @ distribution version`."""
    return {path: f"{s.type} @ {s.distribution} {s.version}" for path, s in pipeline.part_specs.items()}


def strategy_versions(recipe: Mapping[str, Any], *, now: bool) -> dict[str, str]:
    """Path of a strategy -> `type @ distribution version`: as recorded, or as its name is found now."""
    found: dict[str, str] = {}
    for stage, call in calls_of(recipe).items():
        for kind in ("sampler", "grid", "guidance", "cache"):
            one = call.get(kind) or {}
            if one.get("distribution") is None:
                continue
            dist, version = one["distribution"], one.get("version")
            if now:
                entry = find(kind, one["type"], dist)
                dist, version = entry.dist, entry.version
            found[f"{stage}.{kind}" if stage else kind] = f"{one['type']} @ {dist} {version}"
    return found


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The recipe in a file written by `Output.save`.

    Raises:
        SourceError: no such file, neither PNG nor safetensors, or it contains no recipe.
    """
    path = path_of(path, "path")
    text = stored_recipe(path)
    if text is None:
        what = "the picture contains no recipe"
        raise SourceError("no-recipe", what, where=str(path), fits="a PNG saved by ldmkit")
    return check_recipe(parse_json(text, f"{path} recipe"), str(path))


def load_options(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, besides the model, with which `ldmkit.load` loaded the picture's pipeline."""
    names = ("config", "ema", "variant", "dtype")
    return {key: recipe["load"][key] for key in names if recipe["load"].get(key) is not None}


def check_recipe(recipe: Any, where: str) -> dict[str, Any]:
    """A recipe, checked for the keys that `replay` uses.

    Raises:
        SourceError: `no-recipe`: a key is missing or has the wrong type; `newer-version`.
    """
    if not isinstance(recipe, dict):
        raise SourceError("no-recipe", "the recipe is no JSON object", where=where)
    for name, call in calls_of(recipe).items():
        _check_shape(call, _CALL, f"{where}: stage {name!r}" if name else where)
    _check_shape(recipe, _MODEL, where)
    if recipe["recipe"] > RECIPE_VERSION:
        what = f"recipe version {recipe['recipe']} was written by a newer ldmkit; this one reads up to {RECIPE_VERSION}"
        raise SourceError("newer-version", what, where=where)
    return recipe


def _check_shape(recipe: object, shape: Mapping[str, tuple[type, ...]], where: str) -> None:
    found = recipe if isinstance(recipe, dict) else {}
    for key, kinds in shape.items():
        if not isinstance(found.get(key, _DEFAULTS.get(key, _ABSENT)), kinds):
            raise SourceError("no-recipe", f"the recipe is damaged: its {key!r} is absent or wrong", where=where)


_ABSENT = object()
_DEFAULTS: dict[str, Any] = {"proposed": {}, "cache": {}, "placed": {}, "updates": [], "rewritten": {}}
"""What is absent from recipes where there is none."""

_MODEL: dict[str, tuple[type, ...]] = {
    "recipe": (int,),
    **dict.fromkeys(("parts", "load"), (dict,)),
    "model": (str, dict, type(None)),
    "spec": (str,),
}
_CALL: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("steps", "seed"), (int,)),
    **dict.fromkeys(
        ("inputs", "negative", "proposed", "sampler", "grid", "guidance", "cache", "placed", "rewritten"), (dict,)
    ),
    "start": (str, dict, type(None)),
    **dict.fromkeys(("size", "updates"), (list,)),
}


def _written(pipeline: Composed, rows: Sequence[Mapping[str, Any]], extracted: Extractions) -> Iterator[dict[str, Any]]:
    """Rows of parsed inputs as JSON, with what hints were made of in the place of the hints."""
    for row, made in zip(rows, extracted or [{}] * len(rows), strict=True):
        whole = _dump(pipeline, {name: value for name, value in row.items() if name not in made})
        yield {**whole, **{name: one.written() for name, one in made.items() if name in row}}


def _dump(pipeline: Composed, row: Mapping[str, Any]) -> dict[str, Any]:
    owners = pipeline.inputs
    return {key: TypeAdapter(owners[key].Input).dump_python(value, mode="json") for key, value in row.items()}


def _update(pipeline: Composed, one: Mapping[str, Any]) -> dict[str, Any]:
    """A file of an adapter, and the options with which it acts."""
    if one.get("kind") == ADAPTER:
        now = plain_config(pipeline.adapters[one["name"]].config)
        options = {key: value for key, value in now.items() if one["read"].get(key) != value}
        return {**{key: value for key, value in one.items() if key != "read"}, "options": options}
    if "name" not in one:
        return dict(one)
    config = pipeline.adapters[one["name"]].config.model_dump(mode="json", include=set(OPTIONS))
    return {**one, **config}


def _starts(starts: Sequence[Start]) -> list[Any]:
    """The starts as JSON; a start shared by several rows is serialised once."""
    written: dict[int, dict[str, Any]] = {}
    for start in starts:
        if id(start) not in written:
            unused = {"image" if start.image is None else "latents", *(["noised"] if start.noised is None else [])}
            written[id(start)] = start.model_dump(mode="json", exclude=unused)
    return [written[id(start)] for start in starts]


def _strategy(kind: str, value: Value) -> dict[str, Any]:
    try:
        config = value.model_dump(mode="json")
        type(value).of(config)  # fails if functions or tensors were left out, in which case it is not reproducible
        entry = name_of(kind, type(value))
        named = {"type": registered_name(entry), "distribution": entry.dist, "version": entry.version}
        return {**named, "config": config}
    except (PydanticSerializationError, LdmkitError, TypeError):
        return {"type": type(value).__name__, "config": None}
