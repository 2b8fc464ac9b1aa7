"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[str, typer.Argument(help="Folder, checkpoint, bundled name or hf:org/name.")]
ModelOrBundled = Annotated[
    str | None,
    typer.Argument(help="Folder, checkpoint, bundled name or hf:org/name; default: the model that comes with ldmkit."),
]
Config = Annotated[Path | None, typer.Option(help="Original yaml of a checkpoint.")]
Ema = Annotated[bool | None, typer.Option("--ema/--raw", help="Averaged or raw weights; default: averaged if present.")]
Variant = Annotated[
    str | None, typer.Option(help="Weights of a diffusers folder by the name of their variant: fp16, non_ema ...")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or float64; default: the model's own.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a file that has the name; default: the next free number is added.")
]
Scale = Annotated[float | None, typer.Option(help="Scale of the codec's latents, where its file does not say it.")]
Verify = Annotated[
    Literal["fast", "full", "off"],
    typer.Option(help="How the files of a saved folder are compared with its digests: fast, full or off."),
]
Yes = Annotated[
    bool, typer.Option("--yes", help="Run what the machine has no memory for by the estimate, or looks like a mistake.")
]
