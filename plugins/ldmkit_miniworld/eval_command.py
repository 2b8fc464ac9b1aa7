"""`ldmkit eval miniworld`: does a model draw what it is asked for?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldmkit.cli.options import Device, Dtype, Ema, Json, Model, Overwrite, Variant, Verify, Yes

if TYPE_CHECKING:
    from ldmkit_drawing.sheets import Sheet
    from torch import Tensor

    from ldmkit_miniworld.world import World

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)
_SHOWN = 8


@app.callback()
def measures() -> None:
    """Measure what a model draws."""


@app.command()
def miniworld(
    model: Model,
    count: Annotated[int, typer.Option(min=2, help="Pictures of each set of conditions.")] = 256,
    split: Annotated[str, typer.Option(help="Of the world; not one the model was trained on.")] = "test",
    conditions: Annotated[
        str | None,
        typer.Option(
            help="Sets to try, between commas: text, label, layout, semantic, several joined by +, alone (each by "
            "itself), all (all at once), combinations (every set of two or more). Default: alone,all."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Transitions of the sampler; default: the model's own.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="Default: the model's own.")] = None,
    grid: Annotated[str | None, typer.Option(help="Default: the model's own.")] = None,
    guidance: Annotated[
        str | None, typer.Option(help="A scale, a name, or one scale a condition: text=4,layout=2.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first picture; the others follow, none is picked.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 16,
    references: Annotated[int, typer.Option(min=2, help="Renders that Frechet distances are measured to.")] = 1000,
    propose: Annotated[bool, typer.Option(help="Let the model make up boxes for a text that stands alone.")] = True,
    size: Annotated[int | None, typer.Option(help="Side of the pictures; default: the model's own.")] = None,
    plan: Annotated[str, typer.Option(help="How the network is run: eager, auto, prepacked ...")] = "eager",
    out: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a PNG of the first pictures of each set.")] = None,
    overwrite: Overwrite = False,
    yes: Yes = False,
    ema: Ema = None,
    variant: Variant = None,
    device: Device = None,
    dtype: Dtype = None,
    verify: Verify = "fast",
    json: Json = False,
) -> None:
    """Text, class, layout and map by themselves and together, on conditions that the model has not seen."""
    from ldmkit.cli import emit
    from ldmkit.cli.bars import Bars
    from ldmkit.cli.early import check_model
    from ldmkit.cli.words import parse_strategy
    from ldmkit.files.json import check_target, write_json, write_new

    check_model(model, dtype=dtype)

    from ldmkit.loading import load
    from ldmkit.run.output import check_png
    from ldmkit_miniworld.asking import picture_size
    from ldmkit_miniworld.evaluation import How, evaluate
    from ldmkit_miniworld.world import World

    if sheet is not None:
        check_png(sheet)
    if out is not None:
        check_target(out)
    how = How(
        steps=steps,
        sampler=parse_strategy(sampler, "--sampler"),
        grid=parse_strategy(grid, "--grid"),
        guidance=parse_guidance(guidance),
        seed=seed,
        plan=plan,
        batch=batch,
        propose=propose,
        allow_large=yes,
    )
    pipe = load(model, ema=ema, variant=variant, device=device, dtype=dtype, verify=verify)
    world = World(picture_size(pipe, size))
    kept: dict[str, Tensor] = {}
    with Bars("picture", quiet=json) as progress:
        report = evaluate(
            pipe, world, count, split=split, conditions=conditions, how=how, references=references, progress=progress,
            keep=lambda name, images: kept.update({name: images[:_SHOWN].clone()}),
        )  # fmt: skip
    written: list[Path] = []
    if out is not None:
        said = report.model_dump(mode="json")
        written.append(write_new(out, lambda path: write_json(path, said), overwrite=overwrite))
    if sheet is not None:
        written.append(draw_sheet(kept, world, split, report.model).save(sheet, overwrite=overwrite))
    if json:
        emit(report.model_dump(mode="json"))
    else:
        print(report.table(), *written, sep="\n")


def parse_guidance(text: str | None) -> Any:
    """A scale, a name with or without its config, or one scale a condition (`text=4,layout=2`)."""
    from ldmkit.cli import words

    if text is not None and "=" in text and ":" not in text:
        return words.parse_scales(text.split(","))
    return words.parse_guidance(text)


def draw_sheet(kept: dict[str, Tensor], world: World, split: str, title: str) -> Sheet:
    """The first pictures of every set beneath the conditions that they share, one column each."""
    from ldmkit_drawing.drawings import boxes, label_map
    from ldmkit_drawing.sheets import Cell, Sheet

    from ldmkit_miniworld.vocabulary import SEMANTIC

    count = min(len(images) for images in kept.values())
    pictures = [world.sample(split, index) for index in range(count)]
    sheet = Sheet(title, note=f"split {split}, pictures 0 to {count - 1}: the first ones, none picked")
    sheet.row(*(Cell(boxes(p.layout), f"{p.label}: {p.caption}") for p in pictures), label="asked for: text, boxes")
    sheet.row(*(label_map(p.semantic, SEMANTIC, legend=False) for p in pictures), label="map")
    names = {"renders": "the world's own", "codec": "after the codec"}
    for name, images in kept.items():
        sheet.row(*images[:count].unbind(), label=names.get(name, name))
    return sheet
