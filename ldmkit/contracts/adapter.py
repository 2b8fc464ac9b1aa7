"""The contract of adapters, which extend a denoiser through its ports."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self

from torch import Tensor

from ldmkit.contracts.part import Part
from ldmkit.contracts.ports import Tap
from ldmkit.contracts.signals import Slot
from ldmkit.contracts.step import Context, Run


class Adapter(Part, ABC):
    """Extends a denoiser through its ports. A new, zero-initialised one is the identity, bit for bit."""

    slots: Mapping[str, Slot]
    channels: int | None = None
    """Of the latents that it reads itself; None: it reads none, or any."""
    reads: Mapping[str, Slot] = MappingProxyType({})
    """Slots of the denoiser whose signals it reads itself; composing compares their kinds and dims."""

    def adds(self, name: str) -> Mapping[str, int]:
        """Port name -> channels of what its tap adds there, which composing compares with the port's `width`.

        By default none: nothing is known."""
        return {}

    @abstractmethod
    def taps(self, name: str) -> Mapping[str, Tap]:
        """Port name -> tap, for the adapter attached under `name` (its key in `Context.adapters`).

        Equal taps at every call, of tuned copies too; without an entry of that name they return what they get. The
        entry may be that of another adapter of this class, attached by another pipeline of the same name for it: where
        configurations tap other ports, a tap asks the entry whether its port is meant."""

    def conditioner_taps(self, name: str) -> Mapping[str, Mapping[str, Tap]]:
        """Conditioner name -> port name -> tap, for the ports of text towers and their like; none by default.

        What `taps` promises holds for them too. While conditions are encoded there is no run yet, and no sigma:
        `frame.context.adapters[name]` is the adapter itself."""
        return {}

    def prepare(self, context: Context, name: str) -> Any:
        """Once per run: what the taps need, kept in `context.adapters[name]`. `context.run` tells the sigmas.

        The signals of its slots are in `context.signals` under `<name>.<slot>`; they may be absent. Rows in which
        `context.present["<name>.<slot>"]` is False get what they would get without the condition."""
        return None

    def idle(self, run: Run) -> str | None:
        """Why it changes nothing in this run, for a warning: a scale of 0, a window that no step lies in. None: it may
        act."""
        return None

    def drops(self, slot: str) -> bool:
        """Whether the input of a slot is dropped with the others although its wiring says `keep`."""
        return False

    def tuned(self, **changes: Any) -> Self:
        """The same weights with other options; which ones may change after building is the adapter's to say."""
        other = copy.copy(self)
        other.config = self.Config.of({**dict(self.config), **changes}, f"{type(self).__name__} config")
        return other


class Fusable(ABC):
    """Mixin for an adapter that only adds to what linear layers yield, so that it can be added to their weights.

    It taps `linear.<path>` ports alone, of the denoiser or of conditioners, acts the same in every run and at every
    noise level, and takes no conditions.
    """

    @abstractmethod
    def delta(self, port: str, weight: Tensor) -> Tensor:
        """What to add to the weight (outputs, inputs) of the linear layer at a port that it taps; of the same shape.

        `port` is the port's name, `conditioners.<name>.linear.<path>` where a conditioner has it. `weight` is the
        layer's own, without other adapters; it must not be written to.

        Raises:
            CompositionError: with its options as they are it cannot be fused (it acts in a part of the run only ...).
        """
