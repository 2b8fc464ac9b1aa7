"""Replaying recipes: drawing the picture of a recipe again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ldmkit.cascade import Cascade
from ldmkit.contracts.arguments import list_of, mapping_of
from ldmkit.errors import SourceError
from ldmkit.files.reading import only_within
from ldmkit.models.learnt import EMBEDDING
from ldmkit.models.updates import ADAPTER, OPTIONS
from ldmkit.pipeline import Pipeline
from ldmkit.run.output import Output
from ldmkit.run.recipe import calls_of, check_recipe
from ldmkit.run.trust import check_needs, input_needs


def replay(
    pipeline: Pipeline | Cascade, recipe: Mapping[str, Any], *, trust: bool = False, folder: str | Path | None = None
) -> Output:
    """Draw the picture of a recipe again.

    Args:
        pipeline: the pipeline or cascade that drew it.
        trust: read whatever files the recipe names, and do any amount of work. A recipe found in a picture is under
            the control of whoever made the picture.
        folder: the picture's folder, whose files may be read without trust; None: no file may be read.

    Raises:
        SourceError: `not-replayable`: a value of the call could not be stored in JSON; `other-model`: another model
            drew it; `recipe-needs`: it names files elsewhere, or needs too much work; `not-trusted`.
    """
    recipe = check_recipe(dict(mapping_of(recipe, "recipe", "a recipe, as Output.recipes has them")), "recipe")
    folders = () if folder is None else (Path(folder),)
    if trust:
        return _replay(pipeline, recipe, allow_large=True)
    check_needs(input_needs(recipe, *folders), "recipe")
    with only_within(*folders):
        return _replay(pipeline, recipe)


def _replay(pipeline: Pipeline | Cascade, recipe: Mapping[str, Any], allow_large: bool = False) -> Output:
    if recipe.get("spec") != pipeline.spec.hash:
        what = f"the picture was made by a model with spec {recipe.get('spec')}, this one has {pipeline.spec.hash}"
        raise SourceError("other-model", what, where="recipe.spec")
    fused = list(pipeline.merged)
    if recipe.get("fused", []) != fused:
        what = f"the picture was made with {recipe.get('fused', [])} fused into the weights, this model has {fused}"
        raise SourceError("other-model", what, where="recipe.fused", fits="the same pipeline.fused()")
    pipelines = {"": pipeline} if isinstance(pipeline, Pipeline) else pipeline.stages
    for name, call in calls_of(recipe).items():
        if name in pipelines:
            where = f"recipe.stages.{name}" if name else "recipe"
            _check_placed(call, pipelines[name], where)
            _check_updates(call, pipelines[name], where)
    draw: Any = pipeline
    if "stages" not in recipe:
        output: Output = draw(**_arguments(recipe, "recipe"), allow_large=allow_large)
        return output
    stages = {name: _arguments(call, f"recipe.stages.{name}") for name, call in calls_of(recipe).items()}
    chosen = {"first": recipe.get("first"), "last": recipe.get("last")}
    output = draw({}, **chosen, stages=stages, allow_large=allow_large)
    return output


def _check_placed(call: Mapping[str, Any], pipeline: Pipeline, where: str) -> None:
    """Refuse a picture that was drawn with parts in other dtypes or quantisations.

    Raises:
        SourceError: `other-model`.
    """
    drawn = call.get("placed", {})
    if drawn != pipeline.rounded:
        what = f"the picture was made with parts placed as {drawn}, here they are {pipeline.rounded}"
        raise SourceError("other-model", what, where=f"{where}.placed", fits="pipeline.placed(recipe['placed'])")


def _check_updates(call: Mapping[str, Any], pipeline: Pipeline, where: str) -> None:
    """Refuse a picture that was drawn with other files than those attached, where it is known which are.

    Raises:
        SourceError: `other-update`.
    """
    drawn = {one.get("sha256") if isinstance(one, Mapping) else None for one in call.get("updates", [])}
    now = {one["sha256"] for one in pipeline.updates}
    if now and drawn != now:  # a pipeline that was saved with what is attached does not know its files
        what = f"the picture was made with the files {sorted(map(str, drawn))}, this pipeline with {sorted(now)}"
        raise SourceError("other-update", what, where=f"{where}.updates", fits="ldmkit.replaying.with_updates(...)")


def _arguments(recipe: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The arguments of the call that a recipe records.

    Raises:
        SourceError: `not-replayable`.
    """
    for key in ("sampler", "grid", "guidance", *(("cache",) if "cache" in recipe else ())):
        if recipe[key].get("config") is None:
            what = f"its {key} was not recorded: it has no JSON form"
            raise SourceError("not-replayable", what, where=f"{where}.{key}")
    same = {key: recipe[key] for key in ("negative", "size", "steps", "start", "sampler", "grid", "guidance")}
    inputs = {**recipe["inputs"], **recipe.get("proposed", {})}
    return {"inputs": inputs, "propose": False, "seeds": [recipe["seed"]], "cache": recipe.get("cache"), **same}


def with_updates(pipeline: Pipeline, recipe: Mapping[str, Any]) -> Pipeline:
    """The pipeline with the files of adapters (LoRA, ControlNet) and of learnt words with which a picture was drawn.

    Raises:
        SourceError: `other-update`: a file is not the one of the picture; what `Pipeline.with_lora`,
            `Pipeline.with_adapter_file` and `Pipeline.with_embedding` raise.
    """
    for number, one in enumerate(recipe.get("updates", [])):
        where = f"recipe.updates[{number}]"
        update = mapping_of(one, where, "name, source, sha256 and options of an update")
        files = {key: mapping_of(file, f"{where}.files.{key}", "source, sha256") for key, file in _files(update, where)}
        pipeline = _with_update(pipeline, update, files, where)
        now = pipeline.updates[-1]
        _check_same(update, now, where)
        for key, file in files.items():
            _check_same(file, now.get("files", {}).get(key, {}), f"{where}.files.{key}")
    return pipeline


def _files(update: Mapping[str, Any], where: str) -> Iterable[tuple[str, Any]]:
    return mapping_of(update.get("files", {}), f"{where}.files", "option -> source, sha256").items()


def _with_update(
    pipeline: Pipeline, update: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]], where: str
) -> Pipeline:
    source, name = update.get("source"), update.get("name")
    if update.get("kind") == EMBEDDING:
        tokens = list_of(update.get("tokens"), f"{where}.tokens", "tokens-type", "a list of words")
        return pipeline.with_embedding(source, tokens[0] if len(tokens) == 1 else None)  # type: ignore[arg-type]
    if update.get("kind") != ADAPTER:
        changes: Any = {key: update[key] for key in OPTIONS if key in update}
        return pipeline.with_lora(source, name=name, **changes)  # type: ignore[arg-type]
    options = mapping_of(update.get("options", {}), f"{where}.options", "fields of the adapter's config")
    given: Any = {**options, **{key: file.get("source") for key, file in files.items()}}
    return pipeline.with_adapter_file(source, name=name, **given)  # type: ignore[arg-type]


def _check_same(wanted: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Refuse a file that is not the one of the picture.

    Raises:
        SourceError: `other-update`.
    """
    if now.get("sha256") != wanted.get("sha256"):
        source, own = wanted.get("source"), wanted.get("sha256")
        what = f"{source} has changed: its SHA-256 is {now.get('sha256')}, that of the picture's file {own}"
        raise SourceError("other-update", what, where=where, fits="the file that the picture was drawn with")
