"""`ldmkit sample`: draw pictures. Options for conditions are the model's own inputs."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import typer

from ldmkit.cli.asked import Drawing, Reading
from ldmkit.cli.options import (
    Adapters,
    Cache,
    ClipSkip,
    Config,
    Device,
    Dtype,
    Ema,
    Embedding,
    Extract,
    First,
    FirstStages,
    Grid,
    Guidance,
    Json,
    Last,
    Long,
    Lora,
    Masks,
    ModelOrBundled,
    Negative,
    Overwrite,
    Pictures,
    Place,
    Plan,
    Prompts,
    Propose,
    Rewrite,
    Sampler,
    Scales,
    Seed,
    Size,
    Stages,
    Starts,
    Strength,
    Syntax,
    Variant,
    Verify,
    Yes,
)
from ldmkit.cli.prompting import Prompting
from ldmkit.cli.starting import check_start, starting
from ldmkit.cli.words import parse_adapter, parse_embedding, parse_stages, parse_strategy, parse_update, split_words
from ldmkit.errors import InputError

if TYPE_CHECKING:
    from ldmkit.cascade import Cascade
    from ldmkit.contracts.codec import Codec
    from ldmkit.pipeline import Pipeline
    from ldmkit.run.output import Output
    from ldmkit.run.prepared import Prepared


Update: TypeAlias = tuple[str, str, dict[str, Any]]
"""Method of a pipeline that attaches a file, the file, options."""


def sample(
    ctx: typer.Context,
    model: ModelOrBundled = None,
    out: Pictures = Path("out.png"),
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="Number of pictures (consecutive seeds).")] = 1,
    prompts: Prompts = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures per batch.")] = 8,
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(help="Transitions of the sampler; default: the model's.")] = None,
    size: Size = None,
    sampler: Sampler = None,
    grid: Grid = None,
    guidance: Guidance = None,
    cache: Cache = None,
    rewrite: Rewrite = None,
    lora: Lora = None,
    adapter: Adapters = None,
    extract: Extract = None,
    embedding: Embedding = None,
    syntax: Syntax = None,
    clip_skip: ClipSkip = None,
    long: Long = None,
    scales: Scales = None,
    negative: Negative = None,
    start: Starts = None,
    strength: Strength = None,
    mask: Masks = None,
    propose: Propose = True,
    stage: Stages = None,
    stages: FirstStages = None,
    first: First = None,
    last: Last = None,
    inputs: Annotated[bool, typer.Option("--inputs", help="Print the model's inputs and schemas, and exit.")] = False,
    plan: Plan = None,
    place: Place = None,
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
    """Draw pictures. The model's inputs are options: --text "...", --label 3, --layout boxes.json ..."""
    named, words = split_words([*filter(None, [model]), *ctx.args])
    reading = Reading(named, config, ema, variant, device, dtype, verify)
    others = {"steps": steps, "propose": propose, "allow_large": yes, **_staged(stage, first, last, stages)}
    read = Prompting(syntax, clip_skip, long)
    drawing = Drawing(words, size, grid, guidance, scales, negative, others, extract or (), prompts is not None, read)
    many, updates = Many(prompts, number, seed, batch), _updates(lora, adapter, embedding)
    begun = Started(start or [], strength, mask or [])
    _check(out, begun, many, steps)
    folder = reading.check()  # an adapter's inputs are not in the model's folder
    drawing.check(None if adapter else folder, [sampler], {"--start": begun.starts, "--mask": begun.masks}, cache)
    began, pipeline = _loaded(reading)
    drawing = drawing if stages is None else replace(drawing, others={**others, "last": _last_of(pipeline, stages)})
    if inputs:
        return _show_inputs(_derived(pipeline, None, updates, None))
    where, chosen = Where(out, overwrite, json), {"--cache": cache, "--sampler": sampler}
    if rewrite is not None:
        chosen["--rewrite"] = rewrite
    weights = _weights(pipeline) if where.is_folder else None  # before they are placed elsewhere
    return _draw(_derived(pipeline, place, updates, plan), drawing, chosen, begun, many, began, where, weights)


class Many(NamedTuple):
    """How many pictures, of what, from which seed, in batches of which size."""

    prompts: Path | None
    number: int
    seed: int
    batch: int


class Started(NamedTuple):
    """What runs start from, as the arguments of `starting`."""

    starts: list[Path]
    strength: float | None
    masks: list[Path]


def _updates(lora: list[str] | None, adapter: list[str] | None, embedding: list[str] | None) -> list[Any]:
    """Method of the pipeline, file and options, for each file that is attached."""
    updates: list[Any] = [("with_lora", *parse_update(one)) for one in lora or []]
    updates += [("with_adapter_file", *parse_adapter(one)) for one in adapter or []]
    return updates + [("with_embedding", *parse_embedding(one)) for one in embedding or []]


def _draw(
    pipeline: Any, drawing: Drawing, chosen: dict[str, str | None], begun: Started, many: Many, began: float,
    where: Where, weights: str | None,
) -> int:  # fmt: skip
    """One call, or a series of them."""
    given, options = drawing.call(pipeline)
    options |= {option.removeprefix("--"): parse_strategy(name, option) for option, name in chosen.items()}
    options["start"] = starting(*begun, pipeline.codec)
    rows = _rows(begun.starts, begun.masks, options["negative"]) if many.number == 1 else many.number
    if many.prompts is None and rows <= many.batch and not where.is_folder:
        return _call(pipeline, given, {**options, "seeds": range(many.seed, many.seed + rows)}, began, where)
    count = rows if many.prompts is None else many.number
    return _series(pipeline, given, options, many.prompts, count, many.seed, many.batch, where, weights, drawing)


def _loaded(reading: Reading) -> tuple[float, Any]:
    """(start time of loading, the model)."""
    import ldmkit.loading  # noqa: F401 - and torch with it, whose seconds are not the model's

    return time.perf_counter(), reading.load()


def _staged(stage: list[str] | None, first: str | None, last: str | None, count: int | None) -> dict[str, Any]:
    """The cascade options that were given; `count`, the number of stages, is another way to name the last."""
    if count is not None and last is not None:
        raise InputError("option-conflict", "both name the last stage", where="--stages", fits="--stages or --last")
    staged = {"stages": parse_stages(stage or []) or None, "first": first, "last": last}
    return {name: value for name, value in staged.items() if value is not None}


def _last_of(pipeline: Any, count: int) -> str:
    """The name of a cascade's stage by its number, from 1."""
    from ldmkit.cascade import Cascade

    if not isinstance(pipeline, Cascade):
        raise InputError("option-conflict", "it applies to cascades", where="--stages", fits="no --stages")
    if count > len(pipeline.stages):
        what, fits = f"there are {len(pipeline.stages)} stages", ", ".join(pipeline.stages)
        raise InputError("unknown-stage", what, where=f"--stages {count}", fits=fits)
    return list(pipeline.stages)[count - 1]


def _weights(pipeline: Any) -> str | None:
    """Digest of a pipeline's weights; None for a cascade."""
    from ldmkit.models.digests import weights_digest
    from ldmkit.pipeline import Pipeline

    return weights_digest(pipeline.parts.items()) if isinstance(pipeline, Pipeline) else None


def _derived(pipeline: Any, place: list[str] | None, updates: list[Update], plan: str | None) -> Any:
    """The pipeline with files of adapters attached, placed, and called by a plan."""
    from ldmkit.pipeline import Pipeline

    asked = [*(["placed"] if place is not None else []), *(method for method, _, _ in updates)]
    if asked and not isinstance(pipeline, Pipeline):
        options = {"placed": "--place", "with_lora": "--lora", "with_embedding": "--embedding"}
        method, option = asked[0], options.get(asked[0], "--adapter")
        fits = f"no {option}; in Python, cascade.with_(stage=cascade.stages['stage'].{method}(...))"
        raise InputError("option-conflict", "it applies to single stages of a cascade", where=option, fits=fits)
    for method, file, options in updates:
        pipeline = getattr(pipeline, method)(file, **options)
    pipeline = pipeline if place is None else pipeline.placed(place)
    return pipeline if plan is None else pipeline.planned(plan)


def _check(out: Path, begun: Started, many: Many, steps: int | None) -> None:
    """Check what can be checked before torch is imported."""
    from ldmkit.cli.early import check_draws, check_suffix
    from ldmkit.cli.series import check_prompts

    check_start(*begun)
    check_suffix(out)
    if many.prompts is not None:
        check_prompts(many.prompts)
    check_draws(steps, many.seed, many.number)


class Where(NamedTuple):
    """Where pictures are written, and how results are reported."""

    out: Path
    overwrite: bool
    json: bool

    @property
    def is_folder(self) -> bool:
        """Whether pictures are written to a folder."""
        from ldmkit.cli.series import is_folder

        return is_folder(self.out)


def _call(
    pipeline: Pipeline | Cascade, given: dict[str, Any], options: dict[str, Any], began: float, where: Where
) -> int:
    """Draw the pictures of one call; `began` is the start time of loading."""
    _check_out(where.out, _made(pipeline, options))
    ready = time.perf_counter()
    prepared: Any = pipeline.prepare(given, **options)
    with _progress(prepared.total, quiet=where.json) as on_step:
        output = pipeline.run(prepared, on_step)
    paths = [str(path) for path in output.save(where.out, overwrite=where.overwrite)]
    timing = {"load_s": round(ready - began, 3), "sample_s": round(time.perf_counter() - ready, 3)}
    _say(prepared, output, paths, timing, where.json)
    return 0


def _series(
    pipeline: Pipeline | Cascade, given: dict[str, Any], options: dict[str, Any], prompts: Path | None,
    number: int, seed: int, batch: int, where: Where, weights: str | None, drawing: Drawing,
) -> int:  # fmt: skip
    """Draw many pictures, each written when it is done; the exit code is that of the first failure."""
    from ldmkit.cli.answers import exit_code
    from ldmkit.cli.series import Series, check_lines, requests_of, requests_of_call, text_input

    if prompts is not None:
        check_lines(prompts, number, given, options, text_input(pipeline))
        read = requests_of(prompts, pipeline, given, seed, drawing.extractors(pipeline))
        requests = drawing.prompting.requests(pipeline, read)
    else:
        requests = requests_of_call(given, options, range(seed, seed + number))
    if prompts is None and not options["allow_large"]:
        whole = {name: value for name, value in options.items() if name != "allow_large"}
        pipeline.check_count(given, **{**whole, "seeds": range(number)})
    series = Series(where.out, where.overwrite, ".png" if _made(pipeline, options).visual else ".safetensors", weights)
    if series.into_folder:
        where.out.mkdir(exist_ok=True)
    else:
        _check_out(where.out, _made(pipeline, options))
    began = time.perf_counter()
    series.draw(pipeline, requests, batch, options)
    seconds = round(time.perf_counter() - began, 3)
    failures = sorted(series.failed, key=itemgetter(0))
    said = [f"{'line' if prompts else 'picture'} {index + 1}: {error}" for index, error in failures]
    if where.json:
        failed = [{"index": index, "code": error.code, "what": error.what} for index, error in failures]
        written = {"paths": series.paths, "indices": series.indices}
        _emit({**written, "present": series.present, "failed": failed, "sample_s": seconds})
    else:
        print("\n".join(series.paths))
        kept = f", {series.present} existed already" if series.present else ""
        print(f"drawn in {seconds} s: {len(series.paths)} pictures{kept}, {len(said)} failed")
        print("\n".join(f"error {one}" for one in said), file=sys.stderr, end="\n" if said else "")
    return exit_code(failures[0][1]) if failures else 0


def _rows(*given: object) -> int:
    """Number of pictures implied by lists of starts, masks and negatives."""
    return max(1, *(len(one) for one in given if isinstance(one, list)))


def _made(pipeline: Pipeline | Cascade, options: Mapping[str, Any]) -> Codec:
    """The codec of what a call makes: the last stage's that it runs."""
    last = options.get("last")
    stages = getattr(pipeline, "stages", {})
    codec: Codec = stages[last].codec if last in stages else pipeline.codec
    return codec


def _check_out(out: Path, codec: Codec) -> None:
    from ldmkit.run.written import check_out

    check_out(out, visual=codec.visual)


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


def _show_inputs(pipeline: Pipeline | Cascade) -> int:
    _emit(schemas(pipeline))
    return 0


def schemas(pipeline: Pipeline | Cascade) -> dict[str, Any]:
    """JSON schema of every input of a model, with its class names, if any (`names`)."""
    from pydantic import TypeAdapter

    found: dict[str, Any] = {}
    for name, part in pipeline.inputs.items():
        found[name] = TypeAdapter(part.Input).json_schema()
        if names := getattr(part.config, "names", ()):
            found[name]["names"] = list(names)
    return found


class _progress:
    """A progress bar on stderr during a run."""

    def __init__(self, total: int, quiet: bool) -> None:
        from tqdm import tqdm

        self.bar = tqdm(total=total, unit="step", disable=True if quiet else None, leave=False)

    def __enter__(self) -> Any:
        def advance(step: Any) -> None:
            if step.stage is None:
                self.bar.total = step.count
            else:
                self.bar.set_description(step.stage, refresh=False)
            self.bar.update()

        return advance

    def __exit__(self, *failure: object) -> None:
        self.bar.close()
