"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[str, typer.Argument(help="Folder, checkpoint, bundled name or hf:org/name.")]
ModelOrBundled = Annotated[
    str | None,
    typer.Argument(help="Folder, checkpoint, bundled name or hf:org/name; default: the model bundled with ldmkit."),
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
    bool, typer.Option("--overwrite", help="Replace existing files; default: append the next free number.")
]
Scale = Annotated[float | None, typer.Option(help="Scale of the codec's latents, if its file does not contain it.")]
Verify = Annotated[
    Literal["fast", "full", "off"],
    typer.Option(help="How to verify the files of a saved folder against its digests: fast, full or off."),
]
Yes = Annotated[
    bool, typer.Option("--yes", help="Run even if the estimate exceeds the memory or looks like a mistake.")
]

Size = Annotated[
    str | None, typer.Option(help="HEIGHTxWIDTH in pixels, or one number; FRAMESxHEIGHTxWIDTH for videos.")
]
Seed = Annotated[int, typer.Option(help="Seed of the first picture.")]
Sampler = Annotated[str | None, typer.Option(help="See `ldmkit plugins`; default: the model's.")]
Grid = Annotated[str | None, typer.Option(help="Grid of noise levels; default: the model's.")]
Guidance = Annotated[str | None, typer.Option(help="A scale, or a name; default: the model's.")]
Cache = Annotated[
    str | None,
    typer.Option(help="Replaces some network calls by earlier results: input-change, interval:interval=3 ..."),
]
Rewrite = Annotated[
    str | None, typer.Option(help="Draws what a rewriter makes of the text: template, language-model:model=FOLDER ...")
]
Scales = Annotated[list[str] | None, typer.Option("--set", help="One guidance scale per condition: text=7.5 layout=3.")]
Negative = Annotated[
    list[str] | None, typer.Option(help="Input to move away from: text='blurry'; repeat for the next picture.")
]
Lora = Annotated[
    list[str] | None,
    typer.Option("--lora", help="FILE or FILE:SCALE of a LoRA; repeat for more."),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        help="FILE, FILE:SCALE or FILE:key=value,... of a ControlNet or its like, whose inputs become options.",
    ),
]
Extract = Annotated[
    list[str] | None,
    typer.Option(help="Make a hint of the picture given: canny, canny:low=50,high=120, or edges=canny for one input."),
]
Embedding = Annotated[
    list[str] | None,
    typer.Option("--embedding", help="FILE or FILE=WORD of a textual inversion; repeat for more."),
]
Syntax = Annotated[
    Literal["plain", "a1111"] | None,
    typer.Option(help="How texts are read: plain, or with A1111's (weights:1.2), [weights] and BREAK."),
]
ClipSkip = Annotated[
    int | None, typer.Option(min=0, help="Last layers of CLIP to leave out for the text, as diffusers counts them.")
]
Long = Annotated[bool | None, typer.Option("--long/--cut", help="Read long texts in chunks of 75 tokens, or cut them.")]
Stages = Annotated[
    list[str] | None,
    typer.Option("--stage", help="Argument of one stage of a cascade: up.steps=10, base.guidance=4; once for each."),
]
FirstStages = Annotated[
    int | None, typer.Option("--stages", min=1, help="Stop after so many stages of a cascade; or name one with --last.")
]
First = Annotated[str | None, typer.Option(help="Stage of a cascade to begin at, with its inputs from you.")]
Last = Annotated[str | None, typer.Option(help="Stage of a cascade to stop after.")]
Pictures = Annotated[Path, typer.Option("--out", "-o", help="PNG to write, several get -0, -1, ...; or a folder.")]
Prompts = Annotated[
    Path | None, typer.Option(help="One picture per line: .jsonl with inputs and arguments, or .txt with texts.")
]
Plan = Annotated[str | None, typer.Option(help="Execution plan of the network: eager, auto, prepacked ...")]
Place = Annotated[
    list[str] | None,
    typer.Option(help="Where weights are kept: low-memory, text:after-encoding, denoiser:streamed+bfloat16 ..."),
]
Propose = Annotated[bool, typer.Option(help="Let the model propose missing inputs if it can: boxes from a text.")]
Starts = Annotated[
    list[Path] | None,
    typer.Option(help="Picture to start from, or latents from `ldmkit encode`; repeat for several."),
]
Strength = Annotated[
    float | None, typer.Option(help="Fraction of the steps to run from the start picture, in (0, 1]; default 0.8.")
]
Masks = Annotated[
    list[Path] | None, typer.Option(help="White is regenerated, black is preserved; one, or one per start.")
]
