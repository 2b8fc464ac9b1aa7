"""`ldmkit replay`: draw a saved picture again from its embedded recipe, and compare."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from ldmkit.cli.options import Device, Dtype, Json, Overwrite, Verify


def replay_picture(
    picture: Annotated[Path, typer.Argument(help="PNG (or safetensors of vectors) that ldmkit saved.")],
    model: Annotated[str | None, typer.Option(help="The model, if it has moved.")] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Allow the recipe to load models and read files from anywhere.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the new picture.")] = None,
    overwrite: Overwrite = False,
    device: Device = None,
    dtype: Dtype = None,
    verify: Verify = "fast",
    json: Json = False,
) -> None:
    """Draw the picture again and report the largest difference, in 8-bit steps.

    Without --trust only bundled models, --model, and files in the picture's own folder are read.
    """
    from ldmkit.cli.answers import emit
    from ldmkit.cli.early import check_reading
    from ldmkit.errors import SourceError

    if not picture.exists():
        raise SourceError("not-found", "no such file", where=str(picture)[:200])
    check_reading(dtype, verify)

    from ldmkit.replaying import replay
    from ldmkit.run.recipe import load_options, part_versions, read_recipe, strategy_versions
    from ldmkit.run.trust import check_needs, input_needs, model_needs
    from ldmkit.run.written import check_out, difference

    if out is not None:
        check_out(out)
    recipe = read_recipe(picture)
    source = recipe["model"] if model is None else model
    if source is None:
        fits = "--model with the folder or name of the model"
        raise SourceError("no-model", "the recipe names no model", where=str(picture), fits=fits)
    folder = picture.absolute().parent
    if not trust:
        needs = model_needs(recipe, folder, given=model is not None)
        check_needs([*needs, *input_needs(recipe, folder)], str(picture))
    options = {**load_options(recipe), "device": device, **({"dtype": dtype} if dtype else {})}
    pipeline = _model(source, {**options, "verify": verify}, recipe, None if trust else folder, given=model is not None)
    output = replay(pipeline, recipe, trust=trust, folder=folder)
    largest = difference(picture, output.images[0], visual=output.visual)
    largest = round(largest) if output.visual else largest
    now = part_versions(pipeline) | strategy_versions(recipe, now=True)
    before = recipe["parts"] | strategy_versions(recipe, now=False)
    changed = {path: [was, now.get(path)] for path, was in before.items() if now.get(path) != was}
    written = {} if out is None else {"path": str(output.save(out, overwrite=overwrite)[0])}
    if json:
        emit({"largest_difference": largest, "changed_parts": changed, **written})
    else:
        _say(largest, changed, written, " of 255" if output.visual else "")


def _model(source: str, options: dict[str, Any], recipe: dict[str, Any], fence: Path | None, *, given: bool) -> Any:
    """The model of a recipe, with its LoRA files attached, and placed as recorded.

    Args:
        fence: the only folder from which further files may be read; None: any folder.
        given: whether the caller named the model, which may then be anywhere.
    """
    from ldmkit.files.reading import only_within
    from ldmkit.loading import load_model
    from ldmkit.models.locate import locate
    from ldmkit.pipeline import Pipeline
    from ldmkit.replaying import with_updates

    with nullcontext() if fence is None or given else only_within(fence, locate(source)[0]):
        pipeline = load_model(source, **options)
    if not isinstance(pipeline, Pipeline):
        return pipeline
    with nullcontext() if fence is None else only_within(fence):
        pipeline = with_updates(pipeline, recipe)
    return pipeline.placed(recipe["placed"]) if recipe.get("placed") else pipeline


def _say(largest: float, changed: dict[str, list[str | None]], written: dict[str, str], unit: str) -> None:
    for path, (was, now) in changed.items():
        print(f"{path}: drawn with {was}, replayed with {now}")
    print(f"largest difference: {largest}{unit}")
    for path in written.values():
        print(path)
