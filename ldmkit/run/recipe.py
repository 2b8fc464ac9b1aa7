"""The recipe of a picture: everything that is needed to draw it again, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from ldmkit.contracts.arguments import path_of
from ldmkit.contracts.value import Value
from ldmkit.errors import LdmkitError, SourceError
from ldmkit.files.json import parse_json
from ldmkit.models.composed import Composed
from ldmkit.plugins.catalogue import name_of, registered_name
from ldmkit.run.inputs import input_owners
from ldmkit.run.request import Request
from ldmkit.run.starts import Start
from ldmkit.run.written import stored_recipe
from ldmkit.version import VERSION

RECIPE_VERSION = 1


def make_recipes(pipeline: Composed, request: Request, size: Sequence[int]) -> tuple[dict[str, Any], ...]:
    """One recipe a picture of a call."""
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
    rows = zip(request.inputs, request.negative, request.seeds, starts, strict=True)
    recipes = [
        {**common, "start": start, "inputs": _dump(pipeline, row), "negative": _dump(pipeline, negative), "seed": seed}
        for row, negative, seed, start in rows
    ]
    for recipe, made_up in zip(recipes, request.proposed, strict=True):
        if made_up:
            recipe["proposed"] = _dump(pipeline, made_up)
    return tuple(recipes)


def part_versions(pipeline: Composed) -> dict[str, str]:
    """Part path -> `type @ distribution version`."""
    spec = pipeline.spec
    named = {"codec": spec.codec, "denoiser": spec.denoiser, "process": spec.process}
    named |= {f"conditioners.{n}": s for n, s in spec.conditioners.items()}
    named |= {f"adapters.{n}": s for n, s in spec.adapters.items()}
    return {path: f"{s.type} @ {s.distribution} {s.version}" for path, s in named.items()}


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The recipe inside a file that `Output.save` wrote.

    Raises:
        SourceError: no such file, neither PNG nor safetensors, or no recipe in it.
    """
    path = path_of(path, "path")
    text = stored_recipe(path)
    if text is None:
        raise SourceError("no-recipe", "the picture carries no recipe", where=str(path), fits="a PNG that ldmkit saved")
    return check_recipe(parse_json(text, f"{path} recipe"), str(path))


def load_options(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `ldmkit.load`, besides the model, that a picture's pipeline was loaded with."""
    names = ("config", "ema", "variant", "dtype")
    return {key: recipe["load"][key] for key in names if recipe["load"].get(key) is not None}


def check_recipe(recipe: Any, where: str) -> dict[str, Any]:
    """A recipe as it was read, checked for what `replay` reaches for.

    Raises:
        SourceError: `no-recipe` where something is missing or of another type, `newer-version`.
    """
    if not isinstance(recipe, dict):
        raise SourceError("no-recipe", "the recipe is no JSON object", where=where)
    for key, kinds in _SHAPE.items():
        if not isinstance(recipe.get(key, {} if key in ("proposed", "cache") else _ABSENT), kinds):
            raise SourceError("no-recipe", f"the recipe is damaged: its {key!r} is absent or wrong", where=where)
    if recipe["recipe"] > RECIPE_VERSION:
        what = f"recipe version {recipe['recipe']} was written by a newer ldmkit; this one reads up to {RECIPE_VERSION}"
        raise SourceError("newer-version", what, where=where)
    return recipe


_ABSENT = object()

_SHAPE: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("recipe", "steps", "seed"), (int,)),
    **dict.fromkeys(("parts", "inputs", "negative", "proposed", "sampler", "grid", "guidance", "cache"), (dict,)),
    **dict.fromkeys(("model", "start"), (str, dict, type(None))),
    "spec": (str,),
    "size": (list,),
    "load": (dict,),
}


def _dump(pipeline: Composed, row: Mapping[str, Any]) -> dict[str, Any]:
    owners = input_owners(pipeline.conditioners, pipeline.wiring)
    return {key: TypeAdapter(owners[key].Input).dump_python(value, mode="json") for key, value in row.items()}


def _starts(starts: Sequence[Start]) -> list[Any]:
    """Each start as JSON, written once where it stands in several rows; latents only where there are any."""
    written: dict[int, dict[str, Any]] = {}
    for start in starts:
        if id(start) not in written:
            unused = "image" if start.image is None else "latents"
            written[id(start)] = start.model_dump(mode="json", exclude={unused})
    return [written[id(start)] for start in starts]


def _strategy(kind: str, value: Value) -> dict[str, Any]:
    try:
        config = value.model_dump(mode="json")
        type(value).of(config)  # functions and tensors are left out of it: such a value cannot be made again
        entry = name_of(kind, type(value))
        named = {"type": registered_name(entry), "distribution": entry.dist, "version": entry.version}
        return {**named, "config": config}
    except (PydanticSerializationError, LdmkitError, TypeError):
        return {"type": type(value).__name__, "config": None}
