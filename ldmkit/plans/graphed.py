"""The plan "graphed": the network's kernels are captured once as a CUDA graph and launched with a single call."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ldmkit.errors import CompositionError
from ldmkit.plans.base import check_fresh, fingerprint

if TYPE_CHECKING:
    from ldmkit.contracts.denoiser import Denoiser
    from ldmkit.contracts.step import Context

WARMUPS = 3
"""Eager calls before a capture, in which libraries select algorithms and allocate workspaces."""


class Graphed:
    """A denoiser's network as CUDA graphs, one per signature (shapes and dtypes of x, t and the context's tensors).

    A graph reads from static buffers; every call copies x and t into them, and also the context's tensors if the
    context differs from that of the previous call. Calls from several threads are serialised. Taps may read host
    values, which a capture would freeze, so a denoiser with tapped ports is refused; calls that need a gradient run
    eagerly.

    Raises:
        CompositionError: `plan-unavailable` without CUDA, `plan-tapped`, `stale-plan`.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        if denoiser.device.type != "cuda":
            what = f"CUDA graphs need a CUDA device, but the network is on {denoiser.device}"
            raise CompositionError("plan-unavailable", what, where="plan", fits="plan 'eager' or 'auto'")
        self._denoiser = denoiser
        self._made_from = fingerprint(denoiser)
        self._recordings: dict[tuple[Any, ...], _Recording] = {}
        self._lock = threading.Lock()

    def __call__(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        denoiser = self._denoiser
        if torch.is_grad_enabled() and x.requires_grad:
            return denoiser(x, t, context, sigma)  # type: ignore[no-any-return]
        tapped = [name for name, port in denoiser.ports.items() if port.taps]
        if tapped:
            what = f"adapters are attached to {len(tapped)} port(s), including {tapped[0]!r}"
            raise CompositionError("plan-tapped", what, where="plan", fits="plan 'eager' or 'compiled'")
        with self._lock, torch.no_grad():
            leaves = [x, t, *tensors_in(context)]
            signature = tuple((tuple(leaf.shape), leaf.dtype, leaf.device) for leaf in leaves)
            if signature not in self._recordings:
                check_fresh(denoiser, self._made_from, "graphed")
                self._recordings[signature] = _Recording(denoiser, x, t, context)
            recording = self._recordings[signature]
            if recording.context is not context:
                check_fresh(denoiser, self._made_from, "graphed")
            return recording.replay(x, t, context)


class _Recording:
    """A captured graph with its input buffers and its output."""

    def __init__(self, denoiser: Denoiser, x: Tensor, t: Tensor, context: Context) -> None:
        self._x, self._t = x.clone(), t.clone()
        self._fixed = with_tensors(context, torch.Tensor.clone)
        self.context: Context | None = context
        self._graph = torch.cuda.CUDAGraph()
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        current, side = torch.cuda.current_stream(x.device), torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARMUPS):
                denoiser(self._x, self._t, self._fixed, None)
        current.wait_stream(side)
        with torch.cuda.graph(self._graph, stream=side):
            self._out: Tensor = denoiser(self._x, self._t, self._fixed, None)

    def replay(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """A copy of the output for these inputs."""
        stream = torch.cuda.current_stream(x.device)
        stream.wait_event(self._done)
        self._x.copy_(x)
        self._t.copy_(t)
        if context is not self.context:
            self.context = None  # the buffers are inconsistent until all are copied
            for fixed, given in zip(tensors_in(self._fixed), tensors_in(context), strict=True):
                fixed.copy_(given)
            self.context = context
        self._graph.replay()
        out = self._out.clone()
        self._done.record(stream)
        return out


def tensors_in(data: Any) -> Iterator[Tensor]:
    """The tensors of nested dataclasses, tuples, lists and mappings, in a fixed order."""
    if isinstance(data, Tensor):
        yield data
    elif dataclasses.is_dataclass(data):
        for field in dataclasses.fields(data):
            yield from tensors_in(getattr(data, field.name))
    elif isinstance(data, Mapping):
        for key in data:
            yield from tensors_in(data[key])
    elif isinstance(data, (tuple, list)):
        for item in data:
            yield from tensors_in(item)


def with_tensors(data: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with `change` applied to every tensor."""
    if isinstance(data, Tensor):
        return change(data)
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        fields = {f.name: with_tensors(getattr(data, f.name), change) for f in dataclasses.fields(data)}
        return dataclasses.replace(data, **fields)
    if isinstance(data, Mapping):
        return {key: with_tensors(value, change) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(with_tensors(item, change) for item in data))
    if isinstance(data, (tuple, list)):
        return type(data)(with_tensors(item, change) for item in data)
    return data
