"""`ldmkit replay`: draw a saved picture again from the recipe inside it, and compare."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ldmkit.cli.options import Device, Dtype, Json, Overwrite, Verify

if TYPE_CHECKING:
    from torch import Tensor


def replay_picture(
    picture: Annotated[Path, typer.Argument(help="PNG that ldmkit saved.")],
    model: Annotated[str | None, typer.Option(help="The model, where it is not where it was.")] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load and read whatever the picture's recipe names, wherever it is.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the new drawing too.")] = None,
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
        raise SourceError("not-found", "there is no such file", where=str(picture)[:200])
    check_reading(dtype, verify)

    from ldmkit.files.reading import only_within
    from ldmkit.loading import load
    from ldmkit.models.locate import locate
    from ldmkit.replaying import replay
    from ldmkit.run.output import check_png
    from ldmkit.run.recipe import load_options, part_versions, read_recipe
    from ldmkit.run.trust import check_needs, input_needs, model_needs

    if out is not None:
        check_png(out)
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
    fenced = nullcontext() if trust or model is not None else only_within(folder, locate(source)[0])
    with fenced:
        pipeline = load(source, **options, verify=verify)
    output = replay(pipeline, recipe, trust=trust, folder=folder)
    largest = _difference(picture, output.images[0])
    now = part_versions(pipeline)
    changed = {path: [was, now.get(path)] for path, was in recipe["parts"].items() if now.get(path) != was}
    written = {} if out is None else {"path": str(output.save(out, overwrite=overwrite)[0])}
    if json:
        emit({"largest_difference": largest, "changed_parts": changed, **written})
        return
    for path, (was, is_now) in changed.items():
        print(f"{path}: drawn with {was}, replayed with {is_now}")
    print(f"largest difference: {largest} of 255")
    for path in written.values():
        print(path)


def _difference(picture: Path, image: Tensor) -> int:
    """The largest difference of a saved picture to one that was drawn, (3, H, W) in [0, 1], in 8-bit steps.

    Raises:
        SourceError: `other-size`.
    """
    from ldmkit.errors import SourceError
    from ldmkit.files.pictures import read_picture

    before = read_picture(picture, str(picture))
    after = image.mul(255).round().div(127.5) - 1
    if before.shape != after.shape:
        what = f"the picture is {before.shape[1]}x{before.shape[2]}, its recipe draws {after.shape[1]}x{after.shape[2]}"
        raise SourceError("other-size", what, where=str(picture))
    return round(float((before - after).abs().max()) * 127.5)
