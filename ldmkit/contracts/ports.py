"""Ports and taps: how an adapter extends a denoiser without patching it.

A port is a module without parameters that the denoiser calls at a named place. It returns its input unchanged until
taps are attached, so without adapters the only cost is one call, and the state-dict keys never change. Names: `input`,
`down.<level>`, `down.<level>.<block>`, `down.<level>.resample`, `skip.<i>`, `mid`, `attn.<path>`, `self.<path>`,
`block.<path>`, `cross.<path>`, `linear.<path>`, `conv.<path>`.

`input`, `down`, `skip` and `mid` carry feature maps (B,C,h,w): `down.<level>` is the last map of a level, before it is
stored as a skip and resampled (T2I-Adapter adds there), `down.<level>.<block>` the map after each block, and
`down.<level>.resample` the resampled map; the last two and `mid` have the map that they were made from in
`frame.scratch["input"]` (ControlNet-XS reads it). `block` carries the residual stream (B,L,C) of a transformer block
between its two attentions (GLIGEN adds there). `attn` and `cross` carry the result (B,L,C) of a self-attention and of a
cross-attention before its output projection, with `query`, `key` and `value` (B,heads,L,D) in `frame.scratch`. `linear`
and `conv` carry the output of a linear layer or a convolution, with the layer's input in `frame.scratch["input"]` and
the layer in `frame.scratch["layer"]`.
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
"""Key of `Context.memory`: how often a gate returned a stored value."""


class Tap(Protocol):
    """A callable attached to a port: takes the port's value and the current frame, returns the new value."""

    def __call__(self, value: Tensor, frame: Any, /) -> Tensor: ...


class Port(nn.Module):
    """A named place in a denoiser. `frame` is the denoiser's per-forward state (see `contracts.Frame`).

    Args:
        width: channels (features) of its values, which adapters are checked against; None if unspecified.
    """

    def __init__(self, width: int | None = None) -> None:
        super().__init__()
        self.width = width
        self.taps: tuple[Tap, ...] = ()
        self._holds: list[tuple[Tap, int]] = []
        """Reference counts of the taps that pipelines attached."""

    def forward(self, value: Tensor, frame: Any) -> Tensor:
        for tap in self.taps:
            value = tap(value, frame)
        return value

    def clear(self) -> None:
        """Detach all taps, for a copy whose owner attaches its own."""
        self.taps, self._holds = (), []


@runtime_checkable
class GateTap(Protocol):
    """A tap at a gate, which may return a stored value so that the gated computation is skipped."""

    def __call__(self, value: Tensor, frame: Any, /) -> Tensor: ...

    def skip(self, frame: Any, /) -> Tensor | None:
        """The value to use instead of the computation, in the gate's shape; None to compute it."""


class Gate(Port):
    """A port whose taps may skip the computation of its value: the denoiser calls `skip` before computing it.

    Without taps, or if all taps return None, it behaves like any other port.
    """

    def skip(self, frame: Any) -> Tensor | None:
        """The first value that a tap returns, passed through the taps after it; None to compute and call the port.

        Skips are counted in `Context.memory`, so that outputs can report how many network calls were shortened.
        """
        for place, tap in enumerate(self.taps):
            if isinstance(tap, GateTap) and (value := tap.skip(frame)) is not None:
                frame.context.memory[SHORTENED] = frame.context.memory.get(SHORTENED, 0) + 1
                for later in self.taps[place + 1 :]:
                    value = later(value, frame)
                return value
        return None

    def around(self, compute: Callable[[], Tensor], frame: Any) -> Tensor:
        """The stored value, or the result of `compute` passed through the taps."""
        stored = self.skip(frame) if self.taps else None
        return self(compute(), frame) if stored is None else stored


@contextmanager
def attached(ports: Mapping[str, Port], taps: Mapping[str, Tap]) -> Iterator[None]:
    """Attach taps to ports for the duration of a `with` block, and restore the ports afterwards.

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
    """Attach taps until `detach` is called with the same mapping. If a name is unknown, nothing is attached."""
    for name in taps:
        if name not in ports:
            raise CompositionError("unknown-port", f"there is no port {name!r}", fits=suggest(name, ports))
    for name, tap in taps.items():
        ports[name].taps = (*ports[name].taps, tap)


def detach(ports: Mapping[str, Port], taps: Mapping[str, Tap]) -> None:
    """Detach these taps, one occurrence each."""
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
    """`hold` taps until `owner` is garbage-collected."""
    hold(ports, taps)
    finalize(owner, release, ports, dict(taps)).atexit = False


def hold(ports: Mapping[str, Port], taps: Mapping[str, Tap]) -> None:
    """Attach taps with a reference count: if an equal tap is already attached, its count goes up instead.

    Raises:
        CompositionError: the denoiser has no port of that name; nothing is attached.
    """
    with _lock:
        new = {name: tap for name, tap in taps.items() if name not in ports or not _count(ports[name], tap)}
        attach(ports, new)
        for name, tap in taps.items():
            count = _count(ports[name], tap)
            ports[name]._holds = [*(h for h in ports[name]._holds if h[0] != tap), (tap, count + 1)]
    _process_releases()


def release(ports: Mapping[str, Port], taps: Mapping[str, Tap]) -> None:
    """Undo one `hold`; taps whose count reaches zero are detached.

    A finalizer may call this at any point in any thread. If the lock is taken, the thread that holds it does the work.
    """
    _dropped.append((ports, taps))
    _process_releases()


def _count(port: Port, tap: Tap) -> int:
    return next((count for held, count in port._holds if held == tap), 0)


def _process_releases() -> None:
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
