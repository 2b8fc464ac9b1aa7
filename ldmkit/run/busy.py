"""Locking of parts: they cannot be moved during a run, and a run cannot start while they are being moved.

A move during a run is an error instead of waiting, because the run may belong to the same thread (a callback) or be an
abandoned stream. A run that starts during a move waits, because a move always ends.
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
    """Keep parts from being moved inside the block; waits while they are being moved.

    Raises:
        RunError: `file-changed`: the file of memory-mapped weights was changed, before or during the block.
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
                if part in _uses:  # absent if an open stream is garbage-collected together with its parts
                    _uses[part] -= 1
            _changed.notify_all()


@contextmanager
def moving(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Lock parts exclusively, to move or convert them.

    Raises:
        RunError: `busy`: a run, or another computation with one of them, is in progress; `file-changed`.
    """
    held = list({id(part): part for part in parts}.values())
    check_mapped(held)
    with _changed:
        _changed.wait_for(lambda: all(_uses.get(part, 0) != _MOVED for part in held))
        busy = sorted({type(part).__name__ for part in held if _uses.get(part, 0) > 0})
        if busy:
            what = f"{', '.join(busy)} cannot be moved or converted during a run"
            fits = "wait for the run to end (in a callback: after the call returns), or close() an unfinished stream"
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
    """Keep parts (by path) from being moved, and in evaluation mode unless `trained`, inside the block."""
    parts = named.values()
    mode = evaluating([] if trained else modules_of(parts))
    with blaming(), usual_device(), using(parts), mode, explain_mixed_tensors(named):
        yield


def uses_parts(method: F) -> F:
    """Decorator of pipeline methods that compute with the parts, which stay in place and in evaluation mode meanwhile.

    With `grad=True` the parts keep their mode, because they are being trained. Exceptions from parts of other
    distributions are converted (see `faults`).
    """

    @wraps(method)
    def kept(self: Any, *args: Any, **options: Any) -> Any:
        with computing(self.parts.items(), trained=options.get("grad") is True):
            return method(self, *args, **options)

    return kept  # type: ignore[return-value]
