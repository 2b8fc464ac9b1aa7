"""`ldmkit data`: what is done to data sets. `ldmkit data caption` describes their pictures."""

from __future__ import annotations

from os.path import relpath
from pathlib import Path
from typing import Annotated, Any

import typer

from ldmkit import InputError
from ldmkit.cli.options import Json

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

TABLES = (".csv", ".tsv", ".jsonl")


@app.callback()
def data() -> None:
    """Work on data sets."""


@app.command()
def caption(
    source: Annotated[str, typer.Argument(metavar="DATA", help="Folder, table, or a data part: miniworld:count=100.")],
    captioner: Annotated[str, typer.Option("--captioner", help="NAME or NAME:field=value,...; see `ldmkit plugins`.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON lines to write; default: beside DATA.")] = None,
    count: Annotated[int | None, typer.Option("-n", "--count", min=1, help="Only the first pictures.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew instead of going on.")] = False,
    json: Json = False,
) -> None:
    """Write a short and a long caption of every picture, beside the data; an interrupted run is gone on with."""
    from ldmkit_captions.caption_file import CaptionFile
    from ldmkit_captions.captioning import captioner_of, recorded, write_captions

    spec, base, beside = data_spec(source)
    target = out or beside
    if target is None:
        raise InputError("no-out", "DATA is no file or folder to write beside", where="--out", fits="--out FILE.jsonl")
    if target.suffix != ".jsonl":
        raise InputError("not-jsonl", f"{target.name} is no .jsonl", where="--out", fits=f"{target.stem}.jsonl")
    made = captioner_of(captioner)
    file = CaptionFile(target, recorded(made), overwrite)
    before = len(file.done)
    under = "" if base is None else Path(relpath(base, target.resolve().parent)).as_posix()
    write_captions(spec, made, file, count, under)
    if json:
        from ldmkit.cli.answers import emit

        emit({"out": str(target), "captions": len(file.done), "new": len(file.done) - before})
        return
    kept = f", {before} were there already" if before else ""
    print(f"{target}: captions of {len(file.done)} pictures{kept}")


def data_spec(source: str) -> tuple[Any, Path | None, Path | None]:
    """The data part for a command-line argument; the folder that its pictures' names start from, and the file to write
    beside it, if it is a file or folder."""
    from ldmkit import PartSpec
    from ldmkit.cli.words import parse_strategy

    path = Path(source)
    if path.is_dir():
        spec = PartSpec(type="folder", config={"folder": str(path.resolve())})
        return spec, path.resolve(), path.resolve().with_name(f"{path.resolve().name}.captions.jsonl")
    if path.suffix in TABLES:
        spec = PartSpec(type="table", config={"file": str(path.resolve())})
        return spec, path.resolve().parent, path.with_name(f"{path.stem}.captions.jsonl")
    spelt: Any = parse_strategy(source, "DATA")
    return (PartSpec(type=spelt) if isinstance(spelt, str) else PartSpec.of(spelt, "DATA")), None, None
