"""`ldmkit export`: write a model, or parts of it, in the format of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ldmkit import InputError, SourceError
from ldmkit.cli.options import Config, Dtype, Ema, Json, Model, Scale, Variant, Verify

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def export(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    parts: Annotated[
        list[str] | None, typer.Option("--part", help="Export only this part: codec, denoiser or process. Repeatable.")
    ] = None,
    config: Config = None,
    ema: Ema = None,
    variant: Variant = None,
    dtype: Dtype = None,
    verify: Verify = "fast",
    scale: Scale = None,
    json: Json = False,
) -> None:
    """Write a folder that diffusers can load: a pipeline, a codec, or single parts."""
    from ldmkit.cli.early import check_model

    check_model(model, config, dtype, verify)

    from ldmkit_checkpoints.diffusers.export import save_diffusers
    from ldmkit_checkpoints.diffusers.export_parts import save_diffusers_codec, save_diffusers_parts

    from ldmkit.cli.answers import emit
    from ldmkit.loading import pipeline_of
    from ldmkit.models.reading import open_source
    from ldmkit.models.saving import check_folder

    check_folder(out)
    opened = open_source(model, config=config, ema=ema, variant=variant, verify=verify)
    try:
        whole = opened.spec is not None
    except SourceError as alone:
        if alone.code != "source.codec-only":
            raise
        whole = False
    if not whole:
        from ldmkit import load_codec

        codec = load_codec(model, config=config, ema=ema, variant=variant, dtype=dtype, scale=scale, verify=verify)
        save_diffusers_codec(codec, out)
    elif scale is not None:
        raise InputError("not-for-pipeline", "a pipeline has its scale", where="--scale", fits="a codec alone")
    elif parts:
        save_diffusers_parts(pipeline_of(opened, dtype=dtype), out, parts)
    else:
        save_diffusers(pipeline_of(opened, dtype=dtype), out)
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    if json:
        emit({"out": str(out), "files": written})
        return
    print(*written, f"written to {out}", sep="\n")
