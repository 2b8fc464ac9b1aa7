"""The folder of a run: what is in it, and whether a run may use it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder go unnoticed there
    fcntl = None  # type: ignore[assignment]

from ldmkit.errors import InputError, RunError
from ldmkit_training import checkpoints

CHECKPOINTS, MODEL, RECIPE = "checkpoints", "model", "recipe.yaml"

_LOCK, _HALF_WRITTEN = ".lock", ".ldmkit-"


def open_folder(out: Path, accelerator: Any, *, fresh: bool) -> IO[bytes] | None:
    """Make the run folder where it is missing; remove what a killed run left half-written.

    Args:
        out: where; its parents are made too.
        accelerator: the main process does it, the others wait.
        fresh: an older run in it is renamed to `<name>.1`, `.2` ...

    Returns:
        In the main process a file: while it is open, other runs are refused. The system closes it with the process.

    Raises:
        RunError: `cannot-write`; `folder-in-use`: another run is at work in it.
    """
    lock = None
    if accelerator.is_main_process:
        try:
            if fresh and out.is_dir() and any(out.iterdir()):
                with _locked(out):
                    out.rename(_free_name(out))
            out.mkdir(parents=True, exist_ok=True)
            lock = _locked(out)
            for left in out.glob(f"{_HALF_WRITTEN}*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            checkpoints.clean(out / CHECKPOINTS)
        except OSError as problem:
            what = f"it cannot be used: {problem.strerror or problem}"
            raise RunError("cannot-write", what, where=str(out)) from problem
    accelerator.wait_for_everyone()
    return lock


def _locked(out: Path) -> IO[bytes]:
    # a lock of the process, which those that it forks to read data do not keep when it is killed
    lock = (out / _LOCK).open("wb")
    if fcntl is not None:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            lock.close()
            fits = "its end, or another `out`"
            raise RunError("folder-in-use", "another run is at work in it", where=str(out), fits=fits) from None
        except OSError:
            pass  # a file system without locks
    return lock


def check_run_folder(out: Path) -> None:
    """Whether a run can be in that folder.

    Raises:
        InputError: `folder-taken`: it is a file, or holds something that is no run.
    """
    fits = "`out`: a new or empty folder, or that of an earlier run"
    if (out.is_symlink() and not out.exists()) or (out.exists() and not out.is_dir()):
        raise InputError("folder-taken", "it is no folder", where=str(out), fits=fits)
    ours = (_LOCK, _HALF_WRITTEN)
    other = out.is_dir() and not all(path.name.startswith(ours) for path in out.iterdir())
    if other and not (out / RECIPE).is_file():
        raise InputError("folder-taken", f"it holds something, and no run ({RECIPE})", where=str(out), fits=fits)


def _free_name(out: Path) -> Path:
    number = 1
    while (other := out.with_name(f"{out.name}.{number}")).exists():
        number += 1
    return other
