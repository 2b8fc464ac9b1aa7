"""Evaluation mode during runs, because dropout and batch statistics are only for training.

A part may be in training mode when a run starts, because it consists of new modules or is being trained. Its mode is
changed while it computes and restored afterwards; with several threads, the last run restores it.
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
"""Modules whose training mode is suspended -> number of users."""


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Put modules (`modules_of`) in evaluation mode inside the block; the last block to end restores their modes."""
    with _lock:
        others = len(_held) > 0
        found = [module for module in modules if module.training or (others and module in _held)]
        for module in found:
            _held[module] = _held.get(module, 0) + 1
            vars(module)["training"] = False  # nn.Module's own setter takes 4 us, for each module in every step
    try:
        yield
    finally:
        with _lock:
            for module in found:
                _held[module] -= 1
                if not _held[module]:
                    del _held[module]
                    vars(module)["training"] = True


def evaluated(parts: Iterable[nn.Module], made: Iterator[T]) -> Iterator[T]:
    """What an iterator makes, each in evaluation mode: between two of them the parts are their owner's.

    Args:
        made: closed with this one where it can be.
    """
    return stepwise(made, partial(evaluating, modules_of(parts)))


def modules_of(parts: Iterable[nn.Module]) -> list[nn.Module]:
    """Parts and all their submodules, possibly with duplicates."""
    found = list(parts)
    for module in found:
        found += [inner for inner in module._modules.values() if inner is not None]
    return found
