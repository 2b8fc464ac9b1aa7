"""`ldmkit sample`: draw pictures. Options for conditions are the model's own inputs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldmkit.cli.options import Config, Device, Dtype, Ema, Json, ModelOrBundled, Overwrite, Variant, Verify, Yes
from ldmkit.cli.starting import check_start, starting
from ldmkit.cli.words import chosen_guidance, conditions, negatives, parse_size, parse_strategy, split_words

if TYPE_CHECKING:
    from ldmkit.pipeline import Pipeline


def sample(
    ctx: typer.Context,
    model: ModelOrBundled = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write; several get -0, -1, ...")] = Path("out.png"),
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="Pictures to draw, with following seeds.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the first picture.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Transitions of the sampler.")] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH in pixels, or one number.")] = None,
    sampler: Annotated[str | None, typer.Option(help="See `ldmkit plugins`.")] = None,
    grid: Annotated[str | None, typer.Option(help="Which noise levels are visited.")] = None,
    guidance: Annotated[str | None, typer.Option(help="A scale, or a name.")] = None,
    scales: Annotated[list[str] | None, typer.Option("--set", help="One scale a condition: text=7.5 layout=3.")] = None,
    negative: Annotated[
        list[str] | None, typer.Option(help="Input to move away from: text='blurry'; again for the next picture.")
    ] = None,
    start: Annotated[
        list[Path] | None,
        typer.Option(help="Picture to start from, or latents of `ldmkit encode`; once for each of several."),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="How much of the start picture is drawn anew, in (0, 1]; default 0.8.")
    ] = None,
    mask: Annotated[
        list[Path] | None, typer.Option(help="White is drawn anew, black is preserved; one, or one for each start.")
    ] = None,
    propose: Annotated[
        bool, typer.Option(help="Let the model make up inputs that are not given, where it can: boxes from a text.")
    ] = True,
    inputs: Annotated[
        bool, typer.Option("--inputs", help="Print the model's inputs and their schemas, and stop.")
    ] = False,
    plan: Annotated[str | None, typer.Option(help="How the network is run: eager, auto, prepacked ...")] = None,
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
    from ldmkit.cli import emit
    from ldmkit.cli.early import check_call, check_draws, check_model
    from ldmkit.contracts.arguments import check_png

    check_png(out)
    check_draws(steps, seed, number)
    named, words = split_words([*([] if model is None else [model]), *ctx.args])
    check_start(start or [], strength, mask or [])
    check_call(
        check_model(named, config, dtype, verify), words, size=size, strategies=[("sampler", sampler), ("grid", grid)],
        guidance=guidance, scales=scales or [], pictures={"--start": start or [], "--mask": mask or []},
    )  # fmt: skip

    from ldmkit.loading import load
    from ldmkit.models.locate import default_model

    began = time.perf_counter()
    source = default_model() if named is None else named
    pipeline = load(source, config=config, ema=ema, variant=variant, device=device, dtype=dtype, verify=verify)
    if inputs:
        emit(schemas(pipeline))
        return
    if plan is not None:
        pipeline = pipeline.planned(plan)
    given, more_scales = conditions(pipeline, words)
    ready = time.perf_counter()
    opposite = negatives(pipeline, negative or [])
    rows = max(len(start or []), len(mask or []), len(opposite) if isinstance(opposite, list) else 1)
    options: dict[str, Any] = {
        "negative": opposite,
        "size": parse_size(size),
        "seeds": range(seed, seed + (rows if number == 1 else number)),
        "steps": steps,
        "start": starting(start or [], strength, mask or []),
        "sampler": parse_strategy(sampler, "--sampler"),
        "grid": parse_strategy(grid, "--grid"),
        "guidance": chosen_guidance(guidance, [*(scales or []), *more_scales]),
        "propose": propose,
        "allow_large": yes,
    }
    prepared = pipeline.prepare(given, **options)
    with _progress(len(prepared.sigmas) - 1, quiet=json) as on_step:
        output = pipeline.run(prepared, on_step)
    paths = [str(path) for path in output.save(out, overwrite=overwrite)]
    timing = {"load_s": round(ready - began, 3), "sample_s": round(time.perf_counter() - ready, 3)}
    if json:
        counts = {"evaluations": prepared.evaluations, "rows": prepared.rows, "memory": prepared.estimate.bytes}
        recipe = {key: value for key, value in output.recipes[0].items() if key != "inputs"}
        emit({"paths": paths, **timing, **counts, "recipe": recipe})
        return
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
