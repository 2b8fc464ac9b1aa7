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
Ema = Annotated[
    bool | None,
    typer.Option("--ema/--raw", help="Averaged or raw weights; default: what the yaml says, or averaged if present."),
]
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

Size = Annotated[str | None, typer.Option(help="HEIGHTxWIDTH in pixels, or one number; FRAMESxHEIGHTxWIDTH of videos.")]
Seed = Annotated[int, typer.Option(help="Seed of the first picture.")]
Sampler = Annotated[str | None, typer.Option(help="See `ldmkit plugins`; default: the model's own.")]
Grid = Annotated[str | None, typer.Option(help="Which noise levels are visited; default: the model's own.")]
Guidance = Annotated[str | None, typer.Option(help="A scale, or a name; default: the model's own.")]
Cache = Annotated[
    str | None,
    typer.Option(help="Answers some calls of the network from earlier ones: input-change, interval:interval=3 ..."),
]
Scales = Annotated[list[str] | None, typer.Option("--set", help="One scale a condition: text=7.5 layout=3.")]
Negative = Annotated[
    list[str] | None, typer.Option(help="Input to move away from: text='blurry'; again for the next picture.")
]
Lora = Annotated[
    list[str] | None,
    typer.Option("--lora", help="FILE or FILE:SCALE, changes of weights (LoRA); again for more."),
]
Plan = Annotated[str | None, typer.Option(help="How the network is run: eager, auto, prepacked ...")]
Place = Annotated[
    list[str] | None,
    typer.Option(help="Where weights are kept: low-memory, text:after-encoding, denoiser:streamed+bfloat16 ..."),
]
Propose = Annotated[
    bool, typer.Option(help="Let the model make up inputs that are not given, where it can: boxes from a text.")
]
Starts = Annotated[
    list[Path] | None,
    typer.Option(help="Picture to start from, or latents of `ldmkit encode`; once for each of several."),
]
Strength = Annotated[
    float | None, typer.Option(help="How much of the start picture is drawn anew, in (0, 1]; default 0.8.")
]
Masks = Annotated[
    list[Path] | None, typer.Option(help="White is drawn anew, black is preserved; one, or one for each start.")
]
