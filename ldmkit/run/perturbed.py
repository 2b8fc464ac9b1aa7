"""Perturbed networks: a network's weights with separate ports and additional taps."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.ports import Port, Tap, attach
from ldmkit.contracts.step import Context
from ldmkit.errors import RunError


class PerturbedNetwork:
    """A denoiser with additional taps, which do not affect the denoiser or other runs.

    Its modules are shallow copies that share parameters and buffers. Its ports are copies with the taps that are
    currently attached to the denoiser's ports. It runs eagerly, regardless of the denoiser's execution plan.

    Args:
        taps: port name -> tap.

    Raises:
        CompositionError: `unknown-port`.
    """

    def __init__(self, denoiser: Denoiser, taps: Mapping[str, Tap]) -> None:
        self._idle = set(taps)
        self.denoiser: Denoiser = _copied(denoiser, {})
        attach(self.denoiser.ports, {name: self._noted(name, tap) for name, tap in taps.items()})

    def __call__(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        """F.

        Raises:
            RunError: `tap-unused`: the network does not call one of the ports.
        """
        found: Tensor = self.denoiser(x, t, context, sigma)
        if self._idle:
            what = f"the network does not call its port {min(self._idle)!r}, so the view would not be perturbed"
            fits = "a port that is called, registered as a module or listed in `ports`"
            raise RunError("tap-unused", what, where="guidance", fits=fits)
        return found

    def _noted(self, name: str, tap: Tap) -> Tap:
        def noted(value: Tensor, frame: Any) -> Tensor:
            self._idle.discard(name)
            return tap(value, frame)

        return noted


def _copied(module: Any, ports: dict[int, Port]) -> Any:
    """A copy of a module tree that shares parameters and buffers; `ports` maps ids of ports to their copies."""
    if isinstance(module, Port):
        return _port(module, ports)
    other = copy.copy(module)
    children = module._modules.items()
    other.__dict__["_modules"] = {name: None if child is None else _copied(child, ports) for name, child in children}
    for name, value in module.__dict__.items():
        if isinstance(value, Port):
            other.__dict__[name] = _port(value, ports)
        elif isinstance(value, Mapping) and value and all(isinstance(port, Port) for port in value.values()):
            other.__dict__[name] = {key: _port(port, ports) for key, port in value.items()}
    return other


def _port(port: Port, ports: dict[int, Port]) -> Port:
    if id(port) not in ports:
        ports[id(port)] = made = copy.copy(port)
        made._holds = []
    return ports[id(port)]
