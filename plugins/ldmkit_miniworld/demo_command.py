"""`ldmkit demo`: one sheet that shows what a model of the world does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ldmkit.cli.options import Device, Dtype, Json, Overwrite, Verify

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")] = Path("demo.png"),
    seed: Annotated[int, typer.Option(min=0, help="Of the first picture of each part.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Transitions of the sampler; default: the model's own.")
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=2, max=16, help="Pictures of each condition.")] = 4,
    model: Annotated[
        str | None, typer.Option(help="A model that was trained on miniworld; default: the one that comes with ldmkit.")
    ] = None,
    plan: Annotated[str, typer.Option(help="How the network is run: eager, auto, prepacked ...")] = "auto",
    overwrite: Overwrite = False,
    device: Device = None,
    dtype: Dtype = None,
    verify: Verify = "fast",
    json: Json = False,
) -> None:
    """Draw a sheet: each condition alone, all together, three samplers, an inpainting."""
    from ldmkit.cli.answers import emit
    from ldmkit.cli.bars import Bars
    from ldmkit.cli.early import check_model

    check_model(model, dtype=dtype)

    from ldmkit import check_png, load
    from ldmkit.models.locate import default_model
    from ldmkit_miniworld.demo import Demo

    check_png(out)
    began = time.perf_counter()
    pipe = load(default_model() if model is None else model, device=device, dtype=dtype, verify=verify).planned(plan)
    loaded = time.perf_counter()
    with Bars("step", quiet=json) as progress:
        drawing = Demo(pipe, seed, steps, number, progress)
        sheet = drawing.sheet()
    out = sheet.save(out, overwrite=overwrite)
    taken = {"load_s": round(loaded - began, 2), "total_s": round(time.perf_counter() - began, 2)}
    if json:
        emit({"path": str(out), **taken, "parts": drawing.seconds})
        return
    for name, seconds in drawing.seconds.items():
        print(f"{name:<18} {seconds:6.2f} s")
    print(f"{out}: loaded in {taken['load_s']} s, {taken['total_s']} s in all")
