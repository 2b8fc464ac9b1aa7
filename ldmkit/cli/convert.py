"""`ldmkit import`: convert a checkpoint to a native folder, with a report of every key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ldmkit.cli.options import Config, Dtype, Ema, Json, Variant, Verify
from ldmkit.printable import printable


def import_model(
    source: Annotated[str, typer.Argument(help="Checkpoint, diffusers folder or hf:org/name.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    config: Config = None,
    ema: Ema = None,
    variant: Variant = None,
    dtype: Dtype = None,
    verify: Verify = "fast",
    store: Annotated[
        str | None,
        typer.Option(help="dtype of the weights in the files: bfloat16 halves their size; loading converts them back."),
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="List every key, not only the counts.")] = False,
    json: Json = False,
) -> None:
    """Read a model in a published format, or a native folder, and write it as a native folder."""
    from ldmkit.cli.answers import emit
    from ldmkit.cli.early import check_model

    check_model(source, config, dtype, verify)

    from ldmkit.loading import check_dtype, pipeline_of
    from ldmkit.models.reading import open_source
    from ldmkit.models.saving import check_folder, save_pipeline

    check_folder(out)
    stored = check_dtype(store)
    opened = open_source(source, config=config, ema=ema, variant=variant, verify=verify)
    pipeline = pipeline_of(opened, dtype=dtype)
    save_pipeline(pipeline.parts, pipeline.spec, out, stored)
    if json:
        emit(
            {
                "out": str(out),
                "used": opened.report.used,
                "ignored": opened.report.ignored,
                "notes": opened.report.notes,
            }
        )
        return
    if report:
        for key, part in opened.report.used.items():
            print(printable(f"{key} -> {part}"))
        for key, reason in opened.report.ignored.items():
            print(printable(f"{key}: ignored: {reason}"))
    for line in opened.report.summary():
        print(printable(line))
    print(printable(f"written to {out}"))
