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
    """The raw network F(x, t, context). It publishes slots (conditions) and ports (places for adapters)."""

    channels: int
    slots: Mapping[str, Slot]
    ports: Mapping[str, Port]
    latents: Latents | None = None
    """Those of the codec that it was loaded with."""
    latent_axes: int = 2
    """Axes of its latents behind batch and channels, the codec's as many: 2 of pictures, 3 of videos, 0 of vectors."""
    smallest: int = 1
    """Latents must have at least this many rows and columns."""
    plans: tuple[str, ...] = ("eager", "auto", "compiled", "graphed")
    """Execution plans that `plan` takes; "auto" is the fastest one for the device by what was measured."""
    plan_makers: ClassVar[Mapping[str, str]] = {
        "compiled": "ldmkit.plans.compiled:Compiled",
        "graphed": "ldmkit.plans.graphed:Graphed",
    }
    """Plan -> `module:callable` that makes it of a denoiser, imported when it is asked for; others are eager."""
    regions: tuple[type[nn.Module], ...] = ()
    """Classes of the repeated blocks, which the plan "compiled" compiles one by one; (): the whole network at once."""

    @abstractmethod
    def prepare(self, signals: Mapping[str, Signal]) -> Context:
        """Once per run: project cross-attention K and V, embed vectors. Absent optional slots are allowed."""

    def adapted(self, context: Context) -> Context:
        """Called once a run after adapters have prepared: the context, with what ports in `prepare` yield done again.

        In `prepare` itself `frame.context.adapters` is still empty. For denoisers that call ports there, as those of
        the projections of keys and values; the others keep the default, which returns the context as it is."""
        return context

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        """F. x (B,channels,*axes) already scaled; t (B,) float; -> (B,channels,*axes). `sigma` is passed on to taps.

        Nothing is kept on the module, not even for the length of a call: threads share it."""

    def footprint(self, rows: int, size: tuple[int, ...]) -> Work:
        """What one call for x (rows, channels, *size) takes, without running it. Optional."""
        return Work()

    @property
    def automatic_plan(self) -> str:
        """What the plan "auto" is on the present device and dtype: the fastest of its plans by what was measured."""
        return "eager"

    def plan(self, name: str) -> Network:
        """The network to call by an execution plan, with `forward`'s arguments; "eager" is the denoiser itself.

        A plan is made from the weights as they are now; it refuses a run after they changed, moved or were converted.

        Raises:
            CompositionError: `unknown-plan` (with those on offer), or `plan-unavailable` on this device or dtype.
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
