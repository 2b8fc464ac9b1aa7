"""Attribution of exceptions: those raised in a plugin's code are converted to an error that names the plugin."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from ldmkit.errors import LdmkitError, RunError, raised
from ldmkit.plugins.catalogue import entry_of
from ldmkit.plugins.installed import Entry

OWN = "ldmkit"
"""The distribution whose exceptions are not converted, because they are faults of this library."""
_UNCONVERTED = (LdmkitError, Warning, MemoryError, torch.OutOfMemoryError, StopIteration)


@contextmanager
def blaming() -> Iterator[None]:
    """Convert exceptions raised by parts of other distributions in the block to ldmkit errors.

    The part is identified by the innermost traceback frame that is one of its methods. Not converted are errors of
    ldmkit, warnings turned into errors, exhausted memory, and exceptions from outside registered parts (callbacks).

    Raises:
        RunError: `plugin-failed`, with kind, part, distribution and version; the exception is its cause.
    """
    try:
        yield
    except _UNCONVERTED:
        raise
    except Exception as error:
        entry = owner(error)
        if entry is None or entry.dist == OWN:
            raise
        what = f"{entry.kind} {entry.name!r} of {entry.dist} {entry.version} failed: {raised(error)}"
        fits = "please report it to the plugin's author; the original traceback is above, or in `__cause__`"
        raise RunError("plugin-failed", what, where=f"{entry.kind}:{entry.qualified}", fits=fits) from error


def owner(error: BaseException) -> Entry | None:
    """The registered part in whose method an exception was raised; None if there is none."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    found = (entry_of(type(part)) for part in map(_bound, reversed(frames)) if part is not None)
    return next((entry for entry in found if entry is not None), None)


def _bound(frame: FrameType) -> object:
    """The first argument of a frame's function (`self` of a method); None if it has none or was deleted."""
    code = frame.f_code
    return frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
