"""`ldmkit eval miniworld`: does a model draw what it is asked for?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldmkit.cli.asked import Reading
from ldmkit.cli.options import (
    Device,
    Dtype,
    Ema,
    Grid,
    Json,
    Model,
    Overwrite,
    Propose,
    Sampler,
    Variant,
    Verify,
    Yes,
)
from ldmkit.cli.words import parse_strategy

if TYPE_CHECKING:
    from ldmkit_drawing.sheets import Sheet
    from torch import Tensor

    from ldmkit import Pipeline
    from ldmkit_miniworld.evaluation import How
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
    sampler: Sampler = None,
    grid: Grid = None,
    guidance: Annotated[
        str | None, typer.Option(help="A scale, a name, or one scale a condition: text=4,layout=2.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first picture; the others follow, none is picked.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 16,
    references: Annotated[int, typer.Option(min=2, help="Renders that Frechet distances are measured to.")] = 1000,
    propose: Propose = True,
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
    reading = Reading(model, ema=ema, variant=variant, device=device, dtype=dtype, verify=verify)
    reading.check()

    from ldmkit_miniworld.evaluation import How

    targets = Targets(out, sheet, overwrite)
    targets.check()
    how = How(
        steps=steps, sampler=parse_strategy(sampler, "--sampler"), grid=parse_strategy(grid, "--grid"),
        guidance=parse_guidance(guidance), seed=seed, plan=plan, batch=batch, propose=propose, allow_large=yes,
    )  # fmt: skip
    asked = {"count": count, "split": split, "conditions": conditions, "references": references}
    _measured(reading.pipeline(), size, how, asked, targets, json)


@dataclass(frozen=True)
class Targets:
    """Where a report and a sheet of pictures are written; None: nowhere."""

    report: Path | None
    sheet: Path | None
    overwrite: bool

    def check(self) -> None:
        """Refuse files that could not be written, before anything is drawn.

        Raises:
            InputError: no such folder, or another ending.
        """
        from ldmkit import check_png
        from ldmkit.files.json import check_target

        if self.sheet is not None:
            check_png(self.sheet)
        if self.report is not None:
            check_target(self.report)

    def write(self, report: dict[str, Any], sheet: Callable[[], Sheet]) -> list[Path]:
        """What was written, under the names that it has."""
        from ldmkit import write_json, write_new

        written: list[Path] = []
        if self.report is not None:
            written.append(write_new(self.report, lambda path: write_json(path, report), overwrite=self.overwrite))
        if self.sheet is not None:
            written.append(sheet().save(self.sheet, overwrite=self.overwrite))
        return written


def _measured(pipe: Pipeline, size: int | None, how: How, asked: dict[str, Any], targets: Targets, json: bool) -> None:
    """Draw, measure, write, and say what was found."""
    from ldmkit.cli.answers import emit
    from ldmkit.cli.bars import Bars
    from ldmkit_miniworld.asking import picture_size
    from ldmkit_miniworld.evaluation import evaluate
    from ldmkit_miniworld.world import World

    world = World(picture_size(pipe, size))
    kept: dict[str, Tensor] = {}
    with Bars("picture", quiet=json) as progress:
        report = evaluate(
            pipe, world, how=how, progress=progress, **asked,
            keep=lambda name, images: kept.update({name: images[:_SHOWN].clone()}),
        )  # fmt: skip
    said = report.model_dump(mode="json")
    written = targets.write(said, lambda: draw_sheet(kept, world, asked["split"], report.model))
    if json:
        emit(said)
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
