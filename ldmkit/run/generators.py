"""Detection of parts that draw from a global random generator, which makes a run irreproducible.

The states of the generators are compared before and after the computations of parts, but not across callbacks. This
takes 20 to 40 us per step for torch, and 0.3 ms for numpy and Python, which are checked only in the first step and when
conditions are encoded.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ldmkit.errors import warn
from ldmkit.run.guards import part_name
from ldmkit.run.stepwise import stepwise

if TYPE_CHECKING:
    from ldmkit.run.prepared import Prepared

T = TypeVar("T")
States = dict[str, Any]


def states(device: torch.device, others: bool = True) -> States:
    """The states of torch's generators, and with `others` also those of numpy and Python."""
    found: States = {"torch": torch.get_rng_state()}
    if device.type == "cuda" and torch.cuda.is_available():
        found["torch.cuda"] = torch.cuda.get_rng_state(device)
    if others:
        found["random"] = random.getstate()
        if (numpy := sys.modules.get("numpy")) is not None:
            kept = numpy.random.get_state()
            found["numpy.random"] = (kept[1].tobytes(), *kept[2:])
    return found


def changed(before: States, after: States) -> list[str]:
    """Names of the generators whose state has changed."""

    def equal(one: Any, other: Any) -> bool:
        return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)

    return [name for name, state in before.items() if name in after and not equal(state, after[name])]


@contextmanager
def watched(who: Callable[[], str], device: torch.device) -> Iterator[None]:
    """Warn where a block draws; `who` names the parts that it runs."""
    before = states(device)
    yield
    _warn_draws(changed(before, states(device)), who)


def watched_steps(made: Iterator[T], prepared: Prepared, device: torch.device) -> Iterator[T]:
    """The steps of a run as they are; a warning where making one draws, once a run.

    Args:
        made: closed with this one where it can be.
    """
    first, told = True, False

    @contextmanager
    def looked_at() -> Iterator[None]:
        nonlocal first, told
        before = {} if told else states(device, first)
        yield
        if not told and (names := changed(before, states(device, first))):
            told = True
            _warn_draws(names, lambda: _who(prepared, device))
        first = False

    return stepwise(made, looked_at)


def _who(prepared: Prepared, device: torch.device) -> str:
    """The sampler, or what it calls, which is told by one more call."""
    before = states(device)
    prepared.denoise(prepared.x, prepared.sigmas[0])
    drawn = changed(before, states(device))
    _restore(before, device)
    request = prepared.request
    if drawn:
        network = part_name("denoiser", prepared.evaluate.denoiser)
        return f"{network}, an adapter on it or {part_name('guidance', request.guidance)}"
    return part_name("sampler", request.sampler)


def _restore(before: States, device: torch.device) -> None:
    torch.set_rng_state(before["torch"])
    if "torch.cuda" in before:
        torch.cuda.set_rng_state(before["torch.cuda"], device)
    random.setstate(before["random"])


def _warn_draws(names: list[str], who: Callable[[], str]) -> None:
    if names:
        what = f"{who()} drew from the global generator of {', '.join(names)} (or another thread did)"
        warn(f"{what}: the same seed will not draw this picture again; parts draw by the `noise` that they are given")
