"""`ldmkit sample`: draw pictures. Options for conditions are the model's own inputs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldmkit.cli.asked import Drawing, Reading
from ldmkit.cli.options import (
    Cache,
    Config,
    Device,
    Dtype,
    Ema,
    Grid,
    Guidance,
    Json,
    Masks,
    ModelOrBundled,
    Negative,
    Overwrite,
    Plan,
    Propose,
    Sampler,
    Scales,
    Seed,
    Size,
    Starts,
    Strength,
    Variant,
    Verify,
    Yes,
)
from ldmkit.cli.starting import check_start, starting
from ldmkit.cli.words import parse_strategy, split_words

if TYPE_CHECKING:
    from ldmkit.pipeline import Pipeline
    from ldmkit.run.output import Output
    from ldmkit.run.prepared import Prepared


def sample(
    ctx: typer.Context,
    model: ModelOrBundled = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write; several get -0, -1, ...")] = Path("out.png"),
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="Pictures to draw, with following seeds.")] = 1,
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(help="Transitions of the sampler; default: the model's own.")] = None,
    size: Size = None,
    sampler: Sampler = None,
    grid: Grid = None,
    guidance: Guidance = None,
    cache: Cache = None,
    scales: Scales = None,
    negative: Negative = None,
    start: Starts = None,
    strength: Strength = None,
    mask: Masks = None,
    propose: Propose = True,
    inputs: Annotated[bool, typer.Option("--inputs", help="Print the model's inputs and schemas, and stop.")] = False,
    plan: Plan = None,
    overwrite: Overwrite = False,
    yes: Yes = False,
    config: Config = None,
    ema: Ema = None,
    variant: Variant = None,
    device: Device = None,
    dtype: Dtype = None,
    verify: Verify = "fast",
    json: Json = False,
) -> None:
    """Draw pictures. The model's inputs are options: --text "...", --label 3, --layout boxes.json ..."""
    from ldmkit.cli.early import check_draws, check_suffix

    named, words = split_words([*([] if model is None else [model]), *ctx.args])
    reading = Reading(named, config, ema, variant, device, dtype, verify)
    others = {"steps": steps, "propose": propose, "allow_large": yes}
    drawing = Drawing(words, size, grid, guidance, scales, negative, others)
    starts, masks = start or [], mask or []
    check_suffix(out)
    check_draws(steps, seed, number)
    check_start(starts, strength, masks)
    drawing.check(reading.check(), [sampler], {"--start": starts, "--mask": masks}, cache)

    import ldmkit.loading  # noqa: F401 - and torch with it, whose seconds are not the model's

    began = time.perf_counter()
    pipeline = reading.load()
    if inputs:
        return _emit(schemas(pipeline))
    _check_out(out, pipeline)
    pipeline = pipeline if plan is None else pipeline.planned(plan)
    given, options = drawing.call(pipeline)
    options |= {
        "cache": parse_strategy(cache, "--cache"),
        "sampler": parse_strategy(sampler, "--sampler"),
        "start": starting(starts, strength, masks, pipeline.codec),
    }
    options["seeds"] = range(seed, seed + (_rows(starts, masks, options["negative"]) if number == 1 else number))
    ready = time.perf_counter()
    prepared = pipeline.prepare(given, **options)
    with _progress(len(prepared.sigmas) - 1, quiet=json) as on_step:
        output = pipeline.run(prepared, on_step)
    paths = [str(path) for path in output.save(out, overwrite=overwrite)]
    timing = {"load_s": round(ready - began, 3), "sample_s": round(time.perf_counter() - ready, 3)}
    _say(prepared, output, paths, timing, json)


def _rows(*given: object) -> int:
    """Pictures that lists of starts, masks and negatives speak of."""
    return max(1, *(len(one) for one in given if isinstance(one, list)))


def _check_out(out: Path, pipeline: Pipeline) -> None:
    from ldmkit.run.written import check_out

    check_out(out, visual=pipeline.codec.visual)


def _emit(data: Any) -> None:
    from ldmkit.cli.answers import emit

    emit(data)


def _say(prepared: Prepared, output: Output, paths: list[str], timing: dict[str, float], json: bool) -> None:
    if json:
        counts = {"evaluations": prepared.evaluations, "rows": prepared.rows, "memory": prepared.estimate.bytes}
        recipe = {key: value for key, value in output.recipes[0].items() if key != "inputs"}
        return _emit({"paths": paths, **timing, **counts, "recipe": recipe})
    calls = f"{prepared.evaluations} evaluations of {prepared.rows} rows"
    print("\n".join(paths))
    print(f"loaded in {timing['load_s']} s, drawn in {timing['sample_s']} s ({calls})")


def schemas(pipeline: Pipeline) -> dict[str, Any]:
    """JSON schema of every input of a model, with the names of its classes where it has any (`names`)."""
    from pydantic import TypeAdapter

    from ldmkit.run.inputs import input_owners

    found: dict[str, Any] = {}
    for name, part in input_owners(pipeline.conditioners, pipeline.wiring).items():
        found[name] = TypeAdapter(part.Input).json_schema()
        if names := getattr(part.config, "names", ()):
            found[name]["names"] = list(names)
    return found


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
