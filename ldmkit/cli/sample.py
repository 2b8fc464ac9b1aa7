"""`ldmkit sample`: draw pictures. Options for conditions are the model's own inputs."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldmkit.cli.options import Config, Device, Dtype, Ema, Json, ModelOrBundled
from ldmkit.errors import InputError, suggest
from ldmkit.jsonio import parse_json

if TYPE_CHECKING:
    from ldmkit.pipeline import Pipeline


def sample(
    ctx: typer.Context,
    model: ModelOrBundled = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write; several get -0, -1, ...")] = Path("out.png"),
    number: Annotated[
        int, typer.Option("-n", "--number", min=1, max=1024, help="Pictures to draw, with following seeds.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the first picture.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Transitions of the sampler.")] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH in pixels, or one number.")] = None,
    sampler: Annotated[str | None, typer.Option(help="See `ldmkit plugins`.")] = None,
    grid: Annotated[str | None, typer.Option(help="Which noise levels are visited.")] = None,
    guidance: Annotated[str | None, typer.Option(help="A scale, or a name.")] = None,
    scales: Annotated[list[str] | None, typer.Option("--set", help="One scale a condition: text=7.5 layout=3.")] = None,
    negative: Annotated[list[str] | None, typer.Option(help="Input to move away from: text='blurry'.")] = None,
    start: Annotated[Path | None, typer.Option(help="Picture to start from.")] = None,
    strength: Annotated[
        float | None, typer.Option(help="How much of the start picture is drawn anew, in (0, 1]; default 0.8.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="White is drawn anew, black is preserved.")] = None,
    inputs: Annotated[
        bool, typer.Option("--inputs", help="Print the model's inputs and their schemas, and stop.")
    ] = False,
    plan: Annotated[str | None, typer.Option(help="How the network is run: eager, auto, prepacked ...")] = None,
    config: Config = None,
    ema: Ema = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Draw pictures. The model's inputs are options: --text "...", --label 3, --layout boxes.json ..."""
    from ldmkit.cli import emit
    from ldmkit.loading import default_model, load
    from ldmkit.output import check_png

    check_png(out)
    began = time.perf_counter()
    named, words = split_words([*([] if model is None else [model]), *ctx.args])
    pipeline = load(default_model() if named is None else named, config=config, ema=ema, device=device, dtype=dtype)
    if inputs:
        emit(schemas(pipeline))
        return
    if plan is not None:
        pipeline = pipeline.planned(plan)
    given, more_scales = conditions(pipeline, words)
    ready = time.perf_counter()
    options: dict[str, Any] = {
        "negative": _negative(pipeline, negative or []),
        "size": parse_size(size),
        "seeds": [seed + i for i in range(number)],
        "steps": steps,
        "start": _start(start, strength, mask),
        "sampler": parse_strategy(sampler, "--sampler"),
        "grid": parse_strategy(grid, "--grid"),
        "guidance": _guidance(guidance, [*(scales or []), *more_scales]),
    }
    prepared = pipeline.prepare(given, **options)
    with _progress(len(prepared.sigmas) - 1, quiet=json) as on_step:
        output = pipeline.run(prepared, on_step)
    paths = [str(path) for path in output.save(out)]
    done = time.perf_counter()
    timing = {"load_s": round(ready - began, 3), "sample_s": round(done - ready, 3)}
    if json:
        counts = {"evaluations": prepared.evaluations, "rows": prepared.rows}
        emit(
            {
                "paths": paths,
                **timing,
                **counts,
                "recipe": {k: v for k, v in output.recipes[0].items() if k != "inputs"},
            }
        )
        return
    for path in paths:
        print(path)
    calls = f"{prepared.evaluations} evaluations of {prepared.rows} rows"
    print(f"loaded in {timing['load_s']} s, drawn in {timing['sample_s']} s ({calls})")


def schemas(pipeline: Pipeline) -> dict[str, Any]:
    """JSON schema of every input of a model, with the names of its classes where it has any (`names`)."""
    from pydantic import TypeAdapter

    from ldmkit.encoding import input_owners

    found: dict[str, Any] = {}
    for name, part in input_owners(pipeline.conditioners, pipeline.wiring).items():
        found[name] = TypeAdapter(part.Input).json_schema()
        if names := getattr(part.config, "names", ()):
            found[name]["names"] = list(names)
    return found


def split_words(arguments: list[str]) -> tuple[str | None, list[str]]:
    """(the model, all other words) of the arguments that are no options of the command itself.

    The model is the first word that stands by itself and is no scale (`text=7.5`), or no more than a path that exists.
    """
    rest: list[str] = []
    model: str | None = None
    words = iter(arguments)
    for word in words:
        if word.startswith("--"):
            rest.append(word)
            if "=" not in word:
                rest += [value for value in (next(words, None),) if value is not None]
        elif model is None and ("=" not in word or Path(word).exists()):
            model = word
        else:
            rest.append(word)
    return model, rest


def conditions(pipeline: Pipeline, arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """(inputs, name=scale pairs) from the arguments that are no options of the command itself."""
    from ldmkit.encoding import input_owners

    owners = input_owners(pipeline.conditioners, pipeline.wiring)
    given: dict[str, Any] = {}
    scales: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            scales.append(word)
            continue
        name, has_value, value = word[2:].partition("=")
        if name not in owners:
            what = f"neither the command nor the model {pipeline.origin or ''}".rstrip() + f" has an option --{name}"
            raise InputError("unknown-option", what, fits=suggest(name, owners))
        if name in given:
            raise InputError("option-twice", f"--{name} is given twice")
        if not has_value:
            if not rest:
                raise InputError("option-empty", f"--{name} wants a value")
            value = rest.pop(0)
        given[name] = owners[name].from_text(value)
    return given, scales


def parse_size(text: str | None) -> int | tuple[int, int] | None:
    """`256` or `384x512` (height x width)."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdecimal() for side in sides):
        raise InputError("size-type", f"got {text!r}", where="--size", fits="HEIGHTxWIDTH or one number")
    numbers = [int(side) for side in sides]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _guidance(guidance: str | None, pairs: list[str]) -> Any:
    if guidance is not None and pairs:
        fits = "one scale for all (--guidance), or one a condition (--set)"
        raise InputError("option-conflict", "--guidance and --set exclude each other", fits=fits)
    return parse_scales(pairs) if pairs else parse_guidance(guidance)


def parse_strategy(text: str | None, option: str) -> str | dict[str, Any] | None:
    """A name, or a name with its config: `ddim:eta=1`, `karras:rho=5`, `explicit:values=[5,1,0]`."""
    name, colon, rest = (text or "").partition(":")
    if text is None or not colon or "=" not in rest:
        return text
    config: dict[str, Any] = {}
    for pair in re.split(r",(?=\w+=)", rest):
        key, equals, value = pair.partition("=")
        if not equals or key in config:
            raise InputError("strategy-config", f"got {pair!r}", where=option, fits="name:key=value,key=value")
        try:
            config[key] = parse_json(value, option, InputError)
        except InputError:
            config[key] = value
    return {"type": name, "config": config}


def parse_guidance(text: str | None) -> str | float | dict[str, Any] | None:
    """A scale, a name, or a name with its config."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return parse_strategy(text, "--guidance")


def parse_scales(pairs: list[str]) -> dict[str, float]:
    """`text=7.5` pairs as a mapping."""
    scales: dict[str, float] = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        if name in scales:
            raise InputError("option-twice", f"{name!r} has two scales", where="--set")
        try:
            scales[name] = float(number)
        except ValueError:
            fits = "name=scale, e.g. text=7.5"
            raise InputError("scale-type", f"got {pair!r}", where="--set", fits=fits) from None
    return scales


def _start(picture: Path | None, strength: float | None, mask: Path | None) -> dict[str, Any] | None:
    if picture is None:
        for option, value in (("--strength", strength), ("--mask", mask)):
            if value is not None:
                fits = "--start PICTURE, or the model's own input for a masked picture"
                raise InputError("option-conflict", f"{option} says nothing without --start", where=option, fits=fits)
        return None
    return {"image": picture, "mask": mask, **({} if strength is None else {"strength": strength})}


def _negative(pipeline: Pipeline, pairs: list[str]) -> dict[str, Any]:
    words = [part for pair in pairs for part in (f"--{pair.partition('=')[0]}", pair.partition("=")[2])]
    return conditions(pipeline, words)[0]


class _progress:
    """A progress bar on stderr, for the length of a run."""

    def __init__(self, total: int, quiet: bool) -> None:
        from tqdm import tqdm

        self.bar = tqdm(total=total, unit="step", disable=True if quiet else None, leave=False)

    def __enter__(self) -> Any:
        def advance(step: Any) -> None:
            self.bar.total = step.count
            self.bar.update()

        return advance

    def __exit__(self, *failure: object) -> None:
        self.bar.close()
