"""The folder of a run: what is in it, and whether a run may use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ldmkit.errors import InputError, RunError
from ldmkit_training import checkpoints

CHECKPOINTS, MODEL, RECIPE = "checkpoints", "model", "recipe.yaml"


def open_folder(out: Path, accelerator: Any, *, fresh: bool) -> None:
    """Make the run folder where it is missing; remove what a killed run left half-written.

    Args:
        out: where; its parents are made too.
        accelerator: the main process does it, the others wait.
        fresh: an older run in it is renamed to `<name>.1`, `.2` ...

    Raises:
        RunError: `cannot-write`.
    """
    if accelerator.is_main_process:
        try:
            if fresh and out.is_dir() and any(out.iterdir()):
                out.rename(_free_name(out))
            out.mkdir(parents=True, exist_ok=True)
            checkpoints.clean(out / CHECKPOINTS)
        except OSError as problem:
            what = f"it cannot be used: {problem.strerror or problem}"
            raise RunError("cannot-write", what, where=str(out)) from problem
    accelerator.wait_for_everyone()


def check_run_folder(out: Path) -> None:
    """Whether a run can be in that folder.

    Raises:
        InputError: `folder-taken`: it is a file, or holds something that is no run.
    """
    fits = "`out`: a new or empty folder, or that of an earlier run"
    if (out.is_symlink() and not out.exists()) or (out.exists() and not out.is_dir()):
        raise InputError("folder-taken", "it is no folder", where=str(out), fits=fits)
    if out.is_dir() and any(out.iterdir()) and not (out / RECIPE).is_file():
        raise InputError("folder-taken", f"it holds something, and no run ({RECIPE})", where=str(out), fits=fits)


def _free_name(out: Path) -> Path:
    number = 1
    while (other := out.with_name(f"{out.name}.{number}")).exists():
        number += 1
    return other
