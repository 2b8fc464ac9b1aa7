"""`ldmkit train`: train what a recipe describes."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ldmkit import InputError, SourceError

if TYPE_CHECKING:
    from ldmkit_training.before.recipe import Recipe

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE]", help="YAML file that describes the run.", show_default=False),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override recipe values: --set optimiser.lr=1e-4 data.batch=64")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and exit.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Check gradients and dropout, and exit.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipes and exit.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over; the earlier run's folder is renamed, not deleted.")
    ] = False,
    allow_changed_data: Annotated[
        bool, typer.Option("--allow-changed-data", help="Resume even if the training data have changed.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> int:
    """Train what a recipe describes, or resume a run that was stopped."""
    from ldmkit.cli.answers import emit
    from ldmkit.cli.words import split_words

    named, more = split_words(words or [])
    recipe = None if named is None else Path(named)
    if recipe is None and not schema:
        raise InputError("usage", "a recipe is needed", fits="ldmkit train recipe.yaml")
    if (strange := next((word for word in more if "=" not in word), None)) is not None:
        what = f"{strange!r} is a second recipe, or no key=value"
        raise InputError("usage", what, fits="ldmkit train recipe.yaml --set optimiser.lr=1e-4 data.batch=64")
    if more and not overrides:
        raise InputError("usage", f"{more[0]!r} stands alone", fits=f"--set {more[0]}")
    if recipe is not None and not recipe.exists():
        raise SourceError("not-found", "no such file", where=str(recipe))
    if dry_run and check:
        raise InputError("option-conflict", "--dry-run and --check exclude each other")

    from ldmkit_training.before.recipe import read_training_recipe
    from ldmkit_training.before.recipe import schema as recipe_schema

    if recipe is None or schema:
        emit(recipe_schema())
        return 0
    read = read_training_recipe(recipe, [*(overrides or []), *more])
    from ldmkit.run.faults import blaming
    from ldmkit_training.before.preflight import with_recipe_path

    with with_recipe_path(recipe), blaming():
        if dry_run:
            from ldmkit_training.before.plan import make_plan
            from ldmkit_training.before.plan_table import show

            plan = make_plan(read, recipe.absolute().parent)  # nothing is written to its run folder
            emit(asdict(plan)) if json else show(plan)
            return 0
        if check:
            from ldmkit_training.check_command import run_check

            return run_check(read, recipe.absolute().parent, json=json)
        return _train(read, recipe.absolute().parent, json, fresh=fresh, allow_changed_data=allow_changed_data)


def _train(recipe: Recipe, folder: Path, json: bool, **how: bool) -> int:
    from ldmkit.cli.answers import INTERRUPTED, emit
    from ldmkit.printable import printable
    from ldmkit_training.data.section import data_notes
    from ldmkit_training.loop.devices import automatic
    from ldmkit_training.loop.engine import Engine
    from ldmkit_training.loop.interrupts import INTERRUPTED_SAVED, Signalled, at_once

    try:
        with at_once():
            engine = Engine(recipe, folder, **how)
    except Signalled as signalled:
        print(f"stopped by {signalled.name} before the first step; the run is as it was", file=sys.stderr)
        return INTERRUPTED
    notes = data_notes(engine.train_data, engine.validation_data)
    for note in notes if engine.main else ():
        print(printable(f"note     {note}"), file=sys.stderr if json else sys.stdout)
    if engine.main and engine.step and not json:
        print(printable(f"going on from step {engine.step} of {recipe.steps} in {engine.out}"))
    if engine.main and engine.changed:
        changed = "; ".join(engine.changed)
        print(printable(f"the training data changed since that checkpoint: {changed}"), file=sys.stderr)
    for line in engine.rate_jumps:
        print(printable(line), file=sys.stderr)
    if engine.main and not json:
        for line in automatic(recipe.precision, engine.device):
            print(line)
    outcome = engine.run()
    if engine.main:
        said = {"out": str(engine.out), "step": outcome.step, "stopped": outcome.stopped}
        if json:
            emit({**said, "model": None if outcome.model is None else str(outcome.model), "notes": notes})
        elif outcome.stopped:
            print(f"stopped by {outcome.stopped} after step {outcome.step}; the same command goes on from there")
        else:
            print(printable(f"{outcome.step} steps done; the model is {outcome.model}"))
    return INTERRUPTED_SAVED if outcome.stopped else 0
