"""Drawing is always in evaluation mode: dropout and batch statistics are for training alone.

A part may be in training mode when a run begins: it was composed from new modules, or is being trained. Its mode is
set for as long as something is computed, and restored after. Runs of several threads count: the last one restores.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary

from torch import nn

from ldmkit.run.stepwise import stepwise

T = TypeVar("T")

_lock = threading.Lock()
_held: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""Modules whose training mode is set aside, and by how many."""


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Have modules (`modules_of`) in evaluation mode inside; each has its own mode again after the last block."""
    with _lock:
        others = len(_held) > 0
        found = [module for module in modules if module.training or (others and module in _held)]
        for module in found:
            _held[module] = _held.get(module, 0) + 1
            module.training = False
    try:
        yield
    finally:
        with _lock:
            for module in found:
                _held[module] -= 1
                if not _held[module]:
                    del _held[module]
                    module.training = True


def evaluated(parts: Iterable[nn.Module], made: Iterator[T]) -> Iterator[T]:
    """What an iterator makes, each in evaluation mode: between two of them the parts are their owner's.

    Args:
        made: closed with this one where it can be.
    """
    return stepwise(made, partial(evaluating, modules_of(parts)))


def modules_of(parts: Iterable[nn.Module]) -> list[nn.Module]:
    """Parts and all modules inside, each once or more."""
    found = list(parts)
    for module in found:
        found += [inner for inner in module._modules.values() if inner is not None]
    return found
