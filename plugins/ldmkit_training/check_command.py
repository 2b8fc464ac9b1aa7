"""`ldmkit train --check` and its report."""

from __future__ import annotations

import warnings
from pathlib import Path

from ldmkit import Batch
from ldmkit_training.before.opening import open_recipe
from ldmkit_training.before.recipe import Recipe
from ldmkit_training.before.selfcheck import Check, self_check
from ldmkit_training.data.batches import Batches
from ldmkit_training.loop.devices import on_device, open_accelerator
from ldmkit_training.watch.previews import head

ROWS = 8
"""Rows of a batch at most: the check is about gradients, not about statistics of the data."""
FAILED = 7
"""Exit code where a check failed: no code of an error, and not 1, which a defect of ours has."""


def run_check(recipe: Recipe, folder: Path, *, json: bool = False) -> int:
    """Check a recipe's stage in memory; nothing is written to its run folder. Returns the exit code."""
    checks = checked(recipe, folder)
    if json:
        from ldmkit.cli.answers import emit

        emit({"passed": all(check.passed for check in checks), "checks": [check._asdict() for check in checks]})
    else:
        show(checks)
    return 0 if all(check.passed for check in checks) else FAILED


def checked(recipe: Recipe, folder: Path) -> list[Check]:
    """The checks of a recipe's stage, in float32."""
    accelerator = open_accelerator()
    device = accelerator.device
    stage, train, _ = open_recipe(recipe, folder, accelerator)
    stage.to(device)
    for turn in stage.turns.values():
        turn.to(device).train()
    batches = Batches(train, recipe.data, seed=recipe.seed, accumulate=recipe.accumulate, names=stage.inputs)
    kept: dict[int, Batch] = {}

    def source(step: int) -> Batch:
        if step not in kept:
            kept[step] = on_device(head(batches.at(step)[0], ROWS), device)
        return kept[step]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return self_check(stage, source)


def show(checks: list[Check]) -> None:
    """A table for people, and one line that sums it up."""
    from rich.table import Table

    from ldmkit.printable import cell, print_rich

    table = Table("", "check", "found", "wanted")
    for check in checks:
        mark = "[green]ok[/]" if check.passed else "[bold red]FAIL[/]"
        table.add_row(mark, cell(check.name), cell(check.found), cell(check.wanted))
    print_rich(table)
    failed = [check.name for check in checks if not check.passed]
    print(
        f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}"
        if failed
        else f"all {len(checks)} checks passed"
    )
