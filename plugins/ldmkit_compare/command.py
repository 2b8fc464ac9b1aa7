"""`ldmkit compare`: samplers of a model at several numbers of steps, against a fine run from the same noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ldmkit.cli.asked import Drawing, Reading
from ldmkit.cli.options import (
    Config,
    Device,
    Dtype,
    Ema,
    Grid,
    Guidance,
    Json,
    Negative,
    Overwrite,
    Scales,
    Seed,
    Size,
    Variant,
    Verify,
    Yes,
)
from ldmkit.cli.words import words_of

if TYPE_CHECKING:
    from ldmkit_compare.runs import Comparing

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_WORDS = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=_WORDS)
def compare(
    ctx: typer.Context,
    samplers: Annotated[
        str, typer.Option(help="Comma-separated names, with configs: euler,ddim:eta=1,my-dist:mine:order=2.")
    ] = "euler,dpmpp-2m,unipc",
    steps: Annotated[str, typer.Option(help="Comma-separated numbers of steps.")] = "5,10,20,50",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A .html file, next to which a .png is written, or a folder for both.")
    ] = Path("compare.html"),
    number: Annotated[
        int, typer.Option("-n", "--number", min=1, max=16, help="Pictures per run, with consecutive seeds.")
    ] = 4,
    seed: Seed = 0,
    reference: Annotated[
        int, typer.Option(min=10, max=10000, help="Steps of the reference, and of the run that checks it.")
    ] = 200,
    model: Annotated[
        str | None, typer.Option(help="Folder, checkpoint, bundled name or hf:org/name; default: the bundled model.")
    ] = None,
    size: Size = None,
    grid: Grid = None,
    guidance: Guidance = None,
    scales: Scales = None,
    negative: Negative = None,
    plan: Annotated[str, typer.Option(help="How the network is run: eager, auto, prepacked ...")] = "auto",
    overwrite: Overwrite = False,
    yes: Yes = False,
    config: Config = None,
    ema: Ema = None,
    variant: Variant = None,
    device: Device = None,
    dtype: Dtype = None,
    verify: Verify = "fast",
    json: Json = False,
) -> int:
    """Compare samplers: a table, error over network calls, pictures. Conditions are options as in `ldmkit sample`."""
    from ldmkit_compare.words import parse_steps, sampler_words

    html = targets(out)[0]
    reading = Reading(model, config, ema, variant, device, dtype, verify)
    others = {"seeds": [seed + i for i in range(number)], "allow_large": yes}
    drawing = Drawing(ctx.args, size, grid, guidance, scales, negative, others)
    drawing.check(reading.check(), sampler_words(samplers), {})
    numbers = parse_steps(steps)

    from ldmkit import check_pictures
    from ldmkit_compare.asked import check_plan, parse_samplers
    from ldmkit_compare.runs import Comparing

    entrants = parse_samplers(samplers)
    pipe = reading.pipeline().planned(plan)
    check_pictures(pipe.codec.axes, "a comparison")
    given, options = drawing.call(pipe)
    first = pipe.prepare(given, steps=numbers[0], **options)
    calls = check_plan(entrants, numbers, first.request.grid, pipe.process, 2 * reference)
    if not json:
        print(f"{calls} calls of the network with a batch of {first.rows}, {2 * reference} of them for the reference")
    shown = {name: value or "" for name, value in words_of(ctx.args) if name is not None}
    comparing = Comparing(pipe, first, entrants, numbers, reference)
    return _compared(comparing, shown, html, overwrite=overwrite, json=json)


def _compared(comparing: Comparing, shown: dict[str, str], html: Path, *, overwrite: bool, json: bool) -> int:
    """Run the comparison, write its two files, and report the results."""
    from ldmkit.cli.answers import RUN, emit
    from ldmkit.cli.bars import Bars
    from ldmkit_compare.page import page, save_html
    from ldmkit_compare.sheet import draw, save_png

    with Bars("step", quiet=json) as comparing.progress:
        found, pictures = comparing.run(shown)
    text, image = page(found, pictures), draw(found, pictures)
    html.parent.mkdir(exist_ok=True)
    html = save_html(text, html, overwrite)
    png = save_png(image, html.with_suffix(".png"), overwrite)
    if json:
        emit({"html": str(html), "png": str(png), **found.model_dump(mode="json")})
    else:
        print(f"{found.table()}\n\n{html} and {png} after {found.seconds:.0f} s")
    return RUN if found.failed else 0


def targets(out: Path) -> tuple[Path, Path]:
    """The two files to write: a path that ends in .html, and the .png next to it; any other path is a folder for both,
    created when they are written.

    Raises:
        InputError: the folder to write to does not exist, or the path has another suffix.
    """
    from ldmkit import InputError
    from ldmkit.files.json import check_target

    if out.suffix.lower() == ".html":
        html, png = out, out.with_suffix(".png")
        check_target(html)
        check_target(png)
        return html, png
    if out.is_dir():
        html, png = out / "compare.html", out / "compare.png"
        check_target(html)
        check_target(png)
        return html, png
    if out.suffix or out.exists() or out.is_symlink():
        fits = "a path that ends in .html, or a folder"
        kind = f"{out.suffix} file" if out.suffix else "file without a suffix"
        raise InputError("compare-out", f"a comparison cannot be written as a {kind}", where=str(out), fits=fits)
    check_target(out)
    return out / "compare.html", out / "compare.png"
