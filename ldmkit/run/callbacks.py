"""A caller's function of steps: what it returns does nothing, and who expects it to do something is told so."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping

from torch import Tensor

from ldmkit.contracts.arguments import check_callback
from ldmkit.contracts.step import Step
from ldmkit.errors import warn


class Callback:
    """`on_step` of a run: calls the function with each step, and warns once of a result that was meant to act.

    Other libraries take replaced tensors from a callback, or False to stop. What a lambda returns by the way (True of a
    progress bar, a number) is not looked at.

    Raises:
        InputError: `callback-type`: it cannot be called.
    """

    def __init__(self, function: Callable[[Step], object]) -> None:
        check_callback(function, "on_step", "a function of one Step")
        self._function, self._told = function, False

    def __call__(self, step: Step) -> None:
        found = self._function(step)
        if found is not None and not self._told and (what := _said_of(found)):
            self._told = True
            warn(f"on_step {what}; guidance, samplers and pipe.stream(...), which can be left, change or end a run")


def _said_of(found: object) -> str:
    if isinstance(found, Generator | AsyncGenerator):
        return "is a generator function (it has a `yield`): nothing of it is run"
    if isinstance(found, Awaitable):
        return "is an async function: nothing of it is run"
    if found is False or isinstance(found, Mapping | Tensor | Step | str):
        return f"returned {found if found is False else f'a {type(found).__name__}'}, which does nothing"
    return ""
