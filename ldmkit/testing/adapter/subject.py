"""The subject of the checks of adapters: a class, a configuration, and the denoiser that it extends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.adapter import Adapter
from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.ports import attached
from ldmkit.contracts.step import Context, Run
from ldmkit.errors import LdmkitError
from ldmkit.plugins.catalogue import get
from ldmkit.run.context import prepared_context
from ldmkit.testing.checks import NotApplicable
from ldmkit.testing.denoiser.subject import inputs, signals_of, size_of
from ldmkit.testing.denoiser.tiny import TinyDenoiser
from ldmkit.testing.modules import ModuleSubject, perturbed

NAME = "kit"
"""Name under which adapters are attached."""

SIGMAS = (10.0, 5.0, 1.0, 0.0)
"""Noise levels of the run that adapters are prepared for; the network is called at the second."""


@dataclass(frozen=True)
class AdapterSubject(ModuleSubject):
    """An adapter, one configuration of it, and the denoiser that it extends.

    Args:
        denoiser: see `Example.denoiser`.
        plane_factor: see `Example.plane_factor`.
    """

    denoiser: Mapping[str, Any] | None = None
    plane_factor: int = 1

    def host(self, part: Any) -> Denoiser:
        """A new frozen denoiser with the adapter's dtype and device; the same at every call.

        Raises:
            NotApplicable: it cannot be built, which the check `host` reports.
        """
        try:
            made = perturbed(self.bare_host(), 1).eval().requires_grad_(False)
        except LdmkitError as error:
            raise NotApplicable(f"its denoiser cannot be built: {error.code}") from None
        return made.to(part.device, part.dtype)  # type: ignore[no-any-return]

    def bare_host(self) -> Denoiser:
        """The denoiser as its class builds it, always from the same seed."""
        spec = self.denoiser or {"type": TinyDenoiser}
        cls = get("denoiser", spec["type"]) if isinstance(spec["type"], str) else spec["type"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made: Denoiser = cls(dict(spec.get("config", {})))
        return made

    def given(self, part: Any) -> dict[str, Any]:
        return self.drawn(part, self.host(part))

    def drawn(self, part: Any, host: Denoiser, seed: int = 0) -> dict[str, Any]:
        """Random inputs for the denoiser, and signals for the adapter's slots."""
        size = size_of(host)
        made = inputs(host, size, seed=seed)
        plane = (size[0] * self.plane_factor, size[1] * self.plane_factor)
        own = signals_of(part.slots, host, plane, seed=seed + 100)
        made["signals"] |= {f"{NAME}.{slot}": signal for slot, signal in own.items()}
        return made

    def outputs(self, part: Any, given: Mapping[str, Any]) -> tuple[Tensor, ...]:
        return (extended(self.host(part), {NAME: part}, given),)


def prepared(
    host: Denoiser,
    adapters: Mapping[str, Adapter],
    given: Mapping[str, Any],
    run: bool = True,
    absent: Sequence[int] = (),
    dropped: bool = False,
) -> Context:
    """The denoiser's context with the state that each adapter prepared, as in a pipeline.

    Args:
        run: False: as in training, without a run and a noise level.
        absent: rows in which no slot of an adapter carries a condition.
        dropped: these rows were given a condition, which guidance drops.
    """
    signals, rows = given["signals"], given["x"].shape[0]
    present: dict[str, Tensor] = {}
    if host.device.type != "meta":  # meta tensors have no values, so rows cannot be marked
        present = {slot: torch.ones(rows, dtype=torch.bool, device=host.device) for slot in signals}
        for slot, there in present.items():
            there[list(absent)] = slot in host.slots
    size = tuple(given["x"].shape[2:])
    given_rows = {slot: torch.ones_like(there) for slot, there in present.items()} if dropped else present
    return prepared_context(host, adapters, signals, present, Run(SIGMAS, size) if run else None, given_rows)


def extended(
    host: Denoiser,
    adapters: Mapping[str, Adapter],
    given: Mapping[str, Any],
    run: bool = True,
    absent: Sequence[int] = (),
    dropped: bool = False,
) -> Tensor:
    """F of the denoiser with adapters attached for this call; arguments as for `prepared`."""
    with ExitStack() as stack:
        for name, adapter in adapters.items():
            stack.enter_context(attached(host.ports, adapter.taps(name)))
        context = prepared(host, adapters, given, run, absent, dropped)
        out: Tensor = host(given["x"], given["t"], context, SIGMAS[1] if run else None)
    return out


def plain(host: Denoiser, given: Mapping[str, Any]) -> Tensor:
    """F of the denoiser without any adapter."""
    with torch.no_grad():
        return extended(host, {}, given)
