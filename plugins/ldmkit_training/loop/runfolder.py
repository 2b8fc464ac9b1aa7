"""The run folder: its contents, its lock, and whether a run may use it."""

from __future__ import annotations

import os
import shutil
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not detected
    fcntl = None  # type: ignore[assignment]

from ldmkit import InputError, RunError, Stage
from ldmkit.files.json import check_writable
from ldmkit_training.loop import checkpoints
from ldmkit_training.loop.best import BEST, NOTE

CHECKPOINTS, MODEL, RECIPE = "checkpoints", "model", "recipe.yaml"

FOLDERS = (CHECKPOINTS, MODEL, BEST, "previews", "tensorboard")
FILES = (RECIPE, NOTE, "log.jsonl", "probe.jsonl", "probe.png")
"""Files and folders that a run writes, now or at its end."""

_LOCK, _HALF_WRITTEN = ".lock", ".ldmkit-"


_held: set[tuple[int, int]] = set()
"""Folders (device, inode) in use by this process, to which the system would grant a second lock."""


class Lock:
    """A run's lock on its folder, held until it is closed or garbage-collected; also a context manager."""

    def __init__(self, file: IO[bytes], folder: tuple[int, int]) -> None:
        self.close = weakref.finalize(self, _release, file, folder)
        """Release the lock; closing it again has no effect."""

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _release(file: IO[bytes], folder: tuple[int, int]) -> None:
    _held.discard(folder)
    file.close()


@contextmanager
def released_on_error(lock: Lock | None) -> Iterator[None]:
    """An error inside the block releases the folder at once, however long its traceback is kept."""
    try:
        yield
    except BaseException:
        if lock is not None:
            lock.close()
        raise


def open_folder(out: Path, accelerator: Any, *, fresh: bool) -> Lock | None:
    """Create the run folder if it is missing; remove partly written files of a killed run.

    Args:
        out: the folder; parents are created too.
        accelerator: the main process does the work while the others wait.
        fresh: rename an older run to `<name>.1`, `.2` ...

    Returns:
        In the main process, a lock: while it is held, other runs are refused. The system releases it with the process.

    Raises:
        RunError: `cannot-write`; `folder-in-use`: another run, in this process or another, is using it.
    """
    lock = None
    if accelerator.is_main_process:
        try:
            if fresh and out.is_dir() and any(out.iterdir()):
                with _locked(out):
                    out.rename(_free_name(out))
            out.mkdir(parents=True, exist_ok=True)
            lock = _locked(out)
            with released_on_error(lock):
                for left in out.glob(f"{_HALF_WRITTEN}*"):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
                checkpoints.clean(out / CHECKPOINTS)
        except OSError as problem:
            what = f"it cannot be used: {problem.strerror or problem}"
            raise RunError("cannot-write", what, where=str(out)) from problem
    accelerator.wait_for_everyone()
    return lock


def _locked(out: Path) -> Lock:
    found = out.stat()
    folder = (found.st_dev, found.st_ino)
    if folder in _held:  # before the file is opened: closing it would release the other run's lock
        raise _in_use(out)
    # a lock of the process: forked data workers do not keep it when the process is killed
    path = out / _LOCK
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):  # opening a FIFO would wait for its reader
        raise RunError("cannot-write", "not a regular file", where=str(path), fits="its removal")
    file = path.open("ab")
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.close()
            raise _in_use(out) from None
        except OSError:
            pass  # a file system without locks
    _held.add(folder)
    return Lock(file, folder)


def _in_use(out: Path) -> RunError:
    fits = "its end, or another `out`"
    return RunError("folder-in-use", "another run is at work in it", where=str(out), fits=fits)


def check_run_folder(out: Path, stage: type[Stage], *, fresh: bool = False) -> None:
    """Check that a run can use that folder, and will be able to write everything it writes there.

    Args:
        stage: the stage whose model will be saved.
        fresh: the current contents will be moved away.

    Raises:
        InputError: `folder-taken`: it is a file, or contains something that is not a run or blocks one;
            `not-writable`.
    """
    fits = "`out`: a new or empty folder, or that of an earlier run"
    if (out.is_symlink() and not out.exists()) or (out.exists() and not out.is_dir()):
        raise InputError("folder-taken", "it is no folder", where=str(out), fits=fits)
    ours = (_LOCK, _HALF_WRITTEN)
    other = out.is_dir() and not all(path.name.startswith(ours) for path in out.iterdir())
    if other and not (out / RECIPE).is_file():
        raise InputError("folder-taken", f"it holds something, and no run ({RECIPE})", where=str(out), fits=fits)
    if out.is_dir() and not fresh:
        _check_inside(out, stage, fits)


def _check_inside(out: Path, stage: type[Stage], fits: str) -> None:
    for name in FOLDERS:
        if not os.path.lexists(out / name):
            continue
        if not (out / name).is_dir():
            raise InputError("folder-taken", "it is no folder, and the run needs one", where=str(out / name), fits=fits)
        check_writable(out / name)
    for name in FILES:
        if not os.path.lexists(out / name):
            continue
        if not (out / name).is_file():
            raise InputError("folder-taken", "it is no file, and the run writes one", where=str(out / name), fits=fits)
        if not os.access(out / name, os.W_OK):
            raise InputError("not-writable", "it may not be written to", where=str(out / name), fits=fits)
    for name in (MODEL, BEST):
        if (out / name).is_dir():
            stage.check_saved(out / name)


def _free_name(out: Path) -> Path:
    number = 1
    while (other := out.with_name(f"{out.name}.{number}")).exists():
        number += 1
    return other
