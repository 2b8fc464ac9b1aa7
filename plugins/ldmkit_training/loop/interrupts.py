"""Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP ask a run to stop after its step; a second Ctrl-C or SIGTERM stops it at once.

Batch systems send SIGUSR1 before a job's time is up (slurm's `--signal=USR1@90`); a closing terminal sends SIGHUP,
possibly more than once. A signal that is ignored when the run begins (`nohup`) stays ignored.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

from torch import nn

INTERRUPTED_SAVED = 6
"""Exit code of a run that was asked to stop and saved a checkpoint first."""

_STOPPING = (signal.SIGINT, signal.SIGTERM)
_WARNING = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGHUP") if hasattr(signal, name))  # not on Windows
_SIGNALS = (*_STOPPING, *_WARNING)


class Outcome(NamedTuple):
    """How a run ended.

    Args:
        step: completed optimiser steps.
        stopped: the signal that ended the run early, after a checkpoint; None: it ran to its end.
        model: the saved model; None if the run was stopped.
    """

    step: int
    stopped: str | None
    model: Path | None


class Signalled(KeyboardInterrupt):
    """A signal arrived inside `at_once`. A KeyboardInterrupt, so that no `except Exception` on the way catches it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@contextmanager
def at_once() -> Iterator[None]:
    """Inside the block the first signal raises `Signalled`, so that partly written files are removed on the way out;
    the next one has its default effect."""

    def stop(number: int, frame: FrameType | None) -> None:
        for other, handler in before.items():
            signal.signal(other, handler)
        raise Signalled(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in _heeded()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def between_calls(asked: Callable[[], str | None]) -> Iterator[None]:
    """Inside the block a recorded signal raises `Signalled` at the next call of a network: never in the middle of
    writing a file or exchanging weights, so that a checkpoint can be written afterwards."""

    def look(module: nn.Module, arguments: Any) -> None:
        if (name := asked()) is not None:
            raise Signalled(name)

    hook = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()


def _heeded() -> tuple[signal.Signals, ...]:
    return tuple(number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN)


class Interrupts:
    """Inside the `with` block the first signal sets `asked`; the next Ctrl-C or SIGTERM has its default effect.

    Does nothing outside the main thread, where Python allows no signal handlers.
    """

    def __init__(self) -> None:
        self.asked: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _heeded()}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore(_SIGNALS)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = self.asked or signal.Signals(number).name
        self._restore(_STOPPING)

    def _restore(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number in self._before:
                signal.signal(number, self._before.pop(number))
