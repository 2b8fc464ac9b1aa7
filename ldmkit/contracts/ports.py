"""Ports and taps: how an adapter extends a denoiser without patching it.

A port is a parameter-less module that the denoiser calls at a published place. It returns its input
unchanged until taps are attached, so a denoiser without adapters pays one call and its state-dict keys
never change. Names: `input`, `down.<level>`, `down.<level>.resample`, `skip.<i>`, `mid`, `attn.<path>`, `self.<path>`,
`block.<path>`, `cross.<path>`, `linear.<path>`.

`input`, `down`, `skip` and `mid` carry maps (B,C,h,w): `down.<level>` a level's last map, which becomes a skip and is
resampled after the port (T2I-Adapter adds there), `down.<level>.resample` the resampled map. `block` carries the
residual stream (B,L,C) of a transformer block between its two attentions (GLIGEN adds there); `attn` what a
self-attention, and `cross` what an attention to tokens, gives before its output projection, (B,L,C), with `query`,
`key` and `value` (B,heads,L,D) in `frame.scratch`; `linear` a linear layer's output, with the layer's input in
`frame.scratch["input"]`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable
from weakref import finalize

from torch import Tensor, nn

from ldmkit.contracts.arguments import mapping_of
from ldmkit.errors import CompositionError, suggest

SHORTENED = "shortened"
"""Key of `Context.memory`: how often a gate gave a stored value."""


class Tap(Protocol):
    """What an adapter attaches: gets the port's value and the running frame, returns the new value."""

    def __call__(self, value: Tensor, frame: Any, /) -> Tensor: ...


class Port(nn.Module):
    """A named place in a denoiser. `frame` is the denoiser's per-forward state (see `contracts.Frame`).

    Args:
        width: channels (features) of its values, which adapters are compared with; None: not told.
    """

    def __init__(self, width: int | None = None) -> None:
        super().__init__()
        self.width = width
        self.taps: tuple[Tap, ...] = ()
        self._holds: list[tuple[Tap, int]] = []
        """How many pipelines hold each of the taps that pipelines attached."""

    def forward(self, value: Tensor, frame: Any) -> Tensor:
        for tap in self.taps:
            value = tap(value, frame)
        return value

    def clear(self) -> None:
        """Take all taps off, for a copy whose owner attaches its own."""
        self.taps, self._holds = (), []


@runtime_checkable
class GateTap(Protocol):
    """A tap at a gate, which may give a stored value for what the gate guards."""

    def __call__(self, value: Tensor, frame: Any, /) -> Tensor: ...

    def skip(self, frame: Any, /) -> Tensor | None:
        """The value to go on with, of the shape that the gate carries; None: compute it."""


class Gate(Port):
    """A port that guards the computation of its value: a denoiser asks `skip` before, and leaves it out for a value.

    Untapped, or where all taps answer None, it is a port like others.
    """

    def skip(self, frame: Any) -> Tensor | None:
        """The first tap's answer that is not None, seen by the taps after it; None: compute, and call the port.

        The run counts it (`Context.memory`), so that outputs can say how many calls of the network were shortened.
        """
        for place, tap in enumerate(self.taps):
            if isinstance(tap, GateTap) and (value := tap.skip(frame)) is not None:
                frame.context.memory[SHORTENED] = frame.context.memory.get(SHORTENED, 0) + 1
                for later in self.taps[place + 1 :]:
                    value = later(value, frame)
                return value
        return None

    def around(self, compute: Callable[[], Tensor], frame: Any) -> Tensor:
        """The stored value, or what `compute` makes and the taps make of it."""
        stored = self.skip(frame) if self.taps else None
        return self(compute(), frame) if stored is None else stored


@contextmanager
def attached(ports: Mapping[str, Port], taps: Mapping[str, Tap]) -> Iterator[None]:
    """Attach taps to ports for the length of a `with` block; on leaving, the ports are as they were.

    Raises:
        InputError: `not-a-mapping`.
        CompositionError: a tap names a port that the denoiser does not have.
    """
    ports = mapping_of(ports, "ports", "port name -> port, as Denoiser.ports has it")
    taps = mapping_of(taps, "taps", "port name -> tap")
    attach(ports, taps)
    try:
        yield
    finally:
        detach(ports, taps)


def attach(ports: Mapping[str, Port], taps: Mapping[str, Tap]) -> None:
    """Attach for good; `detach` with the same mapping undoes it. Nothing is attached if one name is wrong."""
    for name in taps:
        if name not in ports:
            raise CompositionError("unknown-port", f"there is no port {name!r}", fits=suggest(name, ports))
    for name, tap in taps.items():
        ports[name].taps = (*ports[name].taps, tap)


def detach(ports: Mapping[str, Port], taps: Mapping[str, Tap]) -> None:
    """Take exactly these taps off again (one occurrence each)."""
    for name, tap in taps.items():
        left = list(ports[name].taps)
        for position, present in enumerate(left):
            if present is tap or present == tap:
                del left[position]
                break
        ports[name].taps = tuple(left)


_lock = threading.Lock()
_dropped: deque[tuple[Mapping[str, Port], Mapping[str, Tap]]] = deque()


def hold_for(owner: object, ports: Mapping[str, Port], taps: Mapping[str, Tap]) -> None:
    """`hold` taps until their owner is gone."""
    hold(ports, taps)
    finalize(owner, release, ports, dict(taps)).atexit = False


def hold(ports: Mapping[str, Port], taps: Mapping[str, Tap]) -> None:
    """Attach taps for as long as somebody holds them: equal ones that are attached already are held once more.

    Raises:
        CompositionError: a tap names a port that the denoiser does not have; then nothing is attached.
    """
    with _lock:
        new = {name: tap for name, tap in taps.items() if name not in ports or not _count(ports[name], tap)}
        attach(ports, new)
        for name, tap in taps.items():
            count = _count(ports[name], tap)
            ports[name]._holds = [*(h for h in ports[name]._holds if h[0] != tap), (tap, count + 1)]
    _let_go()


def release(ports: Mapping[str, Port], taps: Mapping[str, Tap]) -> None:
    """Undo one `hold`; taps that nobody holds any more are detached.

    A finalizer may call it, at any point of any thread: where the lock is taken, its holder does the work.
    """
    _dropped.append((ports, taps))
    _let_go()


def _count(port: Port, tap: Tap) -> int:
    return next((count for held, count in port._holds if held == tap), 0)


def _let_go() -> None:
    while _dropped and _lock.acquire(blocking=False):
        try:
            ports, taps = _dropped.popleft()
            for name, tap in taps.items():
                count = _count(ports[name], tap)
                rest = [held for held in ports[name]._holds if held[0] != tap]
                ports[name]._holds = rest if count < 2 else [*rest, (tap, count - 1)]
                if count == 1:
                    detach(ports, {name: tap})
        except IndexError:  # another thread was faster
            pass
        finally:
            _lock.release()
