"""After an error in the middle of a run: saves a checkpoint of the completed steps and reports where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

from torch import nn

from ldmkit import LdmkitError, RunError
from ldmkit_training.loop import checkpoints


def weight_versions(modules: Iterable[nn.Module]) -> int:
    """Sum of the version counters of all parameters and buffers; it grows with every in-place write to one of them."""
    return sum(t._version for module in modules for t in chain(module.parameters(), module.buffers()))


def with_last_checkpoint(error: RunError, folder: Path) -> RunError:
    """The error with the newest checkpoint of a folder added to its text."""
    newest = checkpoints.newest(folder)
    said = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"
    fits = f"{error.fits}; {said}" if error.fits else said
    return RunError(error.code.partition(".")[2], error.what, where=error.where, fits=fits)


def is_resumable(error: Exception, half: bool) -> bool:
    """Whether the state before an error is one that a run can resume from.

    Args:
        half: whether the failed step had already changed a weight or buffer.
    """
    return not half and not (isinstance(error, RunError) and error.code in _NO_PLACE)


_NO_PLACE = ("run.loss-not-finite", "run.checkpoint-failed")


def save_before_error(error: Exception, step: int, save: Callable[[], Path | None]) -> str:
    """Save the completed steps before `error` ends the run, and add that to its text. Returns the added text (empty in
    a process that only contributed its shards).

    A failure to write the checkpoint does not hide the error; both are reported.
    """
    try:
        path = save()
    except (RunError, OSError) as problem:
        said = f"no checkpoint of step {step} could be written: {problem}"
    else:
        if path is None:
            return ""
        said = f"the {step} steps before it are saved in {path}: once it is put right, the same command goes on"
    if isinstance(error, LdmkitError):
        error.fits = f"{error.fits}; {said}" if error.fits else said
    else:
        error.add_note(said)
    return said
