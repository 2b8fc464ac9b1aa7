"""Who is using a part just now: parts are not moved while a run goes on, and runs do not start while they are moved.

A move during a run is refused rather than kept waiting: the run may be one that the same thread is in (a callback), or
a stream that nobody goes on with. A run that begins during a move waits for it, for a move always ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

from ldmkit.errors import RunError
from ldmkit.models.ambient import usual_device
from ldmkit.models.changed import explain_mixed_tensors
from ldmkit.models.mapped import check_mapped
from ldmkit.run.faults import blaming
from ldmkit.run.modes import evaluating, modules_of

F = TypeVar("F", bound=Callable[..., Any])

_changed = threading.Condition()
_uses: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
_MOVED = -1


@contextmanager
def using(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Keep parts where they are for the length of a block; waits while they are being moved.

    Raises:
        RunError: `file-changed`: weights lie in a file that was written to or truncated, before the block or during it.
    """
    held = list({id(part): part for part in parts}.values())
    check_mapped(held)
    with _changed:
        _changed.wait_for(lambda: all(_uses.get(part, 0) != _MOVED for part in held))
        for part in held:
            _uses[part] = _uses.get(part, 0) + 1
    try:
        yield
        check_mapped(held)
    finally:
        with _changed:
            for part in held:
                if part in _uses:  # gone where a stream that was left open is collected with its parts
                    _uses[part] -= 1
            _changed.notify_all()


@contextmanager
def moving(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Have parts for oneself, to move or convert them.

    Raises:
        RunError: `busy`: a run, or something else that computes with one of them, is under way; `file-changed`.
    """
    held = list({id(part): part for part in parts}.values())
    check_mapped(held)
    with _changed:
        _changed.wait_for(lambda: all(_uses.get(part, 0) != _MOVED for part in held))
        busy = sorted({type(part).__name__ for part in held if _uses.get(part, 0) > 0})
        if busy:
            what = f"a run is using {', '.join(busy)}: nothing can be moved or converted under it"
            fits = "wait for its end (from a callback: after the call returns), or close() a stream that is left"
            raise RunError("busy", what, where="to", fits=fits)
        for part in held:
            _uses[part] = _MOVED
    try:
        yield
    finally:
        with _changed:
            for part in held:
                del _uses[part]
            _changed.notify_all()


@contextmanager
def computing(named: Mapping[str, Any], *, trained: bool = False) -> Iterator[None]:
    """Parts, by their paths, stay where they are inside the block, in evaluation mode unless they are being trained."""
    parts = named.values()
    mode = evaluating([] if trained else modules_of(parts))
    with blaming(), usual_device(), using(parts), mode, explain_mixed_tensors(named):
        yield


def uses_parts(method: F) -> F:
    """A pipeline's method that computes with its parts: they stay where they are while it runs, in evaluation mode.

    With `grad=True` they keep the mode that they are in: it is part of their training. What a part of another
    distribution raises is passed on with its name (see `faults`).
    """

    @wraps(method)
    def kept(self: Any, *args: Any, **options: Any) -> Any:
        with computing(self.parts.items(), trained=options.get("grad") is True):
            return method(self, *args, **options)

    return kept  # type: ignore[return-value]
