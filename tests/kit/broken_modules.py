"""Faults that a module of any kind can have, put into a correct one: for each shared check one that breaks it."""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

COUNTER = itertools.count()
"""Process-wide state, which no part may have."""

Change = Callable[[Any, Tensor, Any], Any]
"""(the part, its first input, what the correct method returned) -> what the broken one returns."""


def module_faults(good: type[Any], method: str) -> dict[str, type[Any]]:
    """Check -> a class that breaks it; `method` of the correct class takes a tensor first and returns one.

    The classes are put into the calling module, so that they can be pickled.
    """
    home = sys._getframe(1).f_globals["__name__"]
    changes: dict[str, Change] = {
        "state-keys": _lazy,
        "safetensors": _with_hidden,
        "copies": _unchanged,
        "determinism": _counted,
        "no-global-rng": _drawing,
        "inputs-untouched": _unchanged,
        "dtype": lambda part, x, out: _each(out, lambda t: t.double()),
        "device": lambda part, x, out: _each(out, lambda t: t + torch.zeros(t.shape, device="cpu", dtype=t.dtype)),
        "batch-invariance": lambda part, x, out: _each(out, lambda t: t - t.mean(0, keepdim=True)),
        "training-rows": lambda part, x, out: (
            _each(out, lambda t: t - t.mean(0, keepdim=True)) if part.training else out
        ),
        "order": lambda part, x, out: _each(out, lambda t: t + _places(t)),
        "gradients": _unchanged,
        "meta": _unchanged,
    }
    inits: dict[str, Callable[[Any], None]] = {
        "meta": _reads_a_file,
        "safetensors": _hides_numbers,
        "copies": _holds_a_lambda,
        "gradients": _has_an_idle_weight,
    }
    made = {}
    for name, change in changes.items():
        cls = _broken(good, method, change, inits.get(name), before=_writes if name == "inputs-untouched" else None)
        cls.__name__ = cls.__qualname__ = f"Broken_{good.__name__}_{name.replace('-', '_')}"
        cls.__module__ = home
        setattr(sys.modules[home], cls.__name__, cls)
        made[name] = cls
    return made


def _broken(
    good: type[Any],
    method: str,
    change: Change,
    init: Callable[[Any], None] | None,
    before: Callable[[Tensor], None] | None,
) -> type[Any]:
    correct = getattr(good, method)

    def __init__(self: Any, config: Any = None) -> None:
        good.__init__(self, config)
        if init is not None:
            init(self)

    def broken(self: Any, x: Any, *args: Any, **named: Any) -> Any:
        if before is not None:
            before(x)
        return change(self, x, correct(self, x, *args, **named))

    return type(good.__name__, (good,), {"__init__": __init__, method: broken})


def _each(out: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return change(out) if isinstance(out, Tensor) else out


def _unchanged(part: Any, x: Any, out: Any) -> Any:
    return out


def _lazy(part: Any, x: Any, out: Any) -> Any:
    if not hasattr(part, "late"):
        part.late = nn.Parameter(torch.zeros(1))
    return out


def _with_hidden(part: Any, x: Any, out: Any) -> Any:
    return _each(out, lambda t: t * part.hidden.to(t))


def _counted(part: Any, x: Any, out: Any) -> Any:
    return _each(out, lambda t: t + next(COUNTER))


def _drawing(part: Any, x: Any, out: Any) -> Any:
    torch.rand(1)
    return out


def _writes(x: Tensor) -> None:
    with torch.no_grad():
        x.mul_(0.9)


def _places(t: Tensor) -> Tensor:
    places = torch.arange(t.shape[0], dtype=t.dtype, device=t.device)
    return places.view(-1, *[1] * (t.ndim - 1))


def _reads_a_file(part: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.txt"
        path.write_text("a b c")
        part.words = path.read_text().split()


def _hides_numbers(part: Any) -> None:
    part.hidden = torch.rand((), device="cpu")  # the kit's seed makes it the same in every build, but not when loaded


def _holds_a_lambda(part: Any) -> None:
    part.activation = lambda t: t


def _has_an_idle_weight(part: Any) -> None:
    part.idle = nn.Linear(2, 2)
