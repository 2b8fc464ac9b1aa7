"""Whose fault an exception was: what a plugin's own code raises is passed on as an error that names the plugin."""

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
"""The distribution whose exceptions pass as they are: they are faults of this library."""
_AS_THEY_ARE = (LdmkitError, Warning, MemoryError, torch.OutOfMemoryError, StopIteration)


@contextmanager
def blaming() -> Iterator[None]:
    """What a part of another distribution raises in the block leaves it as an ldmkit error, with that as its cause.

    A part is known by the innermost frame of the traceback that is one of its methods. Errors of ldmkit, warnings that
    are made errors, exhausted memory, and exceptions that no registered part raised (a callback's, say) pass.

    Raises:
        RunError: `plugin-failed`, naming kind, part, distribution and version.
    """
    try:
        yield
    except _AS_THEY_ARE:
        raise
    except Exception as error:
        entry = owner(error)
        if entry is None or entry.dist == OWN:
            raise
        what = f"{entry.kind} {entry.name!r} of {entry.dist} {entry.version} failed: {raised(error)}"
        fits = "a fault of that plugin, to be told to its author; its own traceback is above, or `__cause__`"
        raise RunError("plugin-failed", what, where=f"{entry.kind}:{entry.qualified}", fits=fits) from error


def owner(error: BaseException) -> Entry | None:
    """The registered part in whose method an exception was raised; None: in that of none."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    found = (entry_of(type(part)) for part in map(_bound, reversed(frames)) if part is not None)
    return next((entry for entry in found if entry is not None), None)


def _bound(frame: FrameType) -> object:
    """What the function of a frame was called on; None: its first argument is gone, or it has none."""
    code = frame.f_code
    return frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
