"""The contract of denoisers: the network F(x, t, context), with its slots and ports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar

from torch import Tensor, nn

from ldmkit.contracts.latents import Latents
from ldmkit.contracts.part import Part
from ldmkit.contracts.ports import Port
from ldmkit.contracts.signals import Signal, Slot
from ldmkit.contracts.step import Context, Network
from ldmkit.contracts.work import Work
from ldmkit.errors import CompositionError, shown, suggest


class Denoiser(Part, ABC):
    """The raw network F(x, t, context), with its slots (conditions it takes) and ports (where adapters attach)."""

    channels: int
    slots: Mapping[str, Slot]
    ports: Mapping[str, Port]
    latents: Latents | None = None
    """The latents of the codec that it was loaded with."""
    latent_axes: int = 2
    """Latent axes after batch and channels, as many as the codec's: 2 for pictures, 3 for videos, 0 for vectors."""
    smallest: int = 1
    """Latents must have at least this many rows and columns."""
    plans: tuple[str, ...] = ("eager", "auto", "compiled", "graphed")
    """Execution plans that `plan` accepts; "auto" is the one measured to be fastest on the device."""
    plan_makers: ClassVar[Mapping[str, str]] = {
        "compiled": "ldmkit.plans.compiled:Compiled",
        "graphed": "ldmkit.plans.graphed:Graphed",
    }
    """Plan -> `module:callable` that builds it from a denoiser, imported on use; plans without an entry are eager."""
    regions: tuple[type[nn.Module], ...] = ()
    """Classes of the repeated blocks that the plan "compiled" compiles one by one; () compiles the whole network."""

    @abstractmethod
    def prepare(self, signals: Mapping[str, Signal]) -> Context:
        """Called once per run to project cross-attention K and V and embed vectors. Optional slots may be absent."""

    def adapted(self, context: Context) -> Context:
        """Called once per run after the adapters' `prepare`: the context with port-dependent values recomputed.

        For denoisers that call ports in `prepare`, such as those of the key and value projections, where
        `frame.context.adapters` is still empty. The default returns the context unchanged."""
        return context

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        """F. x (B,channels,*axes) already scaled; t (B,) float; -> (B,channels,*axes). `sigma` is passed on to taps.

        Must not store anything on the module, not even during the call, because threads share it."""

    def footprint(self, rows: int, size: tuple[int, ...]) -> Work:
        """Estimated cost of one call for x (rows, channels, *size), without running it. Optional."""
        return Work()

    @property
    def automatic_plan(self) -> str:
        """The plan that "auto" selects for the current device and dtype: the one measured to be fastest."""
        return "eager"

    def plan(self, name: str) -> Network:
        """The network under an execution plan, called with `forward`'s arguments; "eager" is the denoiser itself.

        A plan is built from the current weights; it refuses to run once they have been changed, moved or converted.

        Raises:
            CompositionError: `unknown-plan` (lists the available ones), or `plan-unavailable` on this device or dtype.
        """
        if not isinstance(name, str) or name not in self.plans:
            what = f"{type(self).__name__} has no execution plan {shown(name)}"
            raise CompositionError("unknown-plan", what, where="plan", fits=suggest(name, self.plans))
        if name == "auto":
            name = self.automatic_plan
        if name not in self.plan_makers:
            return self
        module, _, maker = self.plan_makers[name].partition(":")
        network: Network = getattr(import_module(module), maker)(self)
        return network
