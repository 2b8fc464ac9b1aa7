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
    """Extends a denoiser through its ports. A new one is zero-initialised and leaves the output bit-identical."""

    slots: Mapping[str, Slot]
    channels: int | None = None
    """Channels of the latents that the adapter itself reads; None if it reads none or accepts any number."""
    reads: Mapping[str, Slot] = MappingProxyType({})
    """Slots of the denoiser whose signals the adapter reads; their kinds and dims are checked at composition."""

    def adds(self, name: str) -> Mapping[str, int]:
        """Port name -> channels that the tap adds at that port; composition compares them with the port's `width`.

        The default is an empty mapping, for which nothing is checked."""
        return {}

    @abstractmethod
    def taps(self, name: str) -> Mapping[str, Tap]:
        """Port name -> tap, for the adapter attached under `name` (its key in `Context.adapters`).

        Every call must return equal taps, also on tuned copies. A tap returns its input unchanged if
        `Context.adapters` has no entry `name`. The entry may belong to another adapter of the same class that a
        second pipeline attached under the same name, so if the set of tapped ports depends on the configuration, a
        tap must ask the entry whether it uses this port."""

    def conditioner_taps(self, name: str) -> Mapping[str, Mapping[str, Tap]]:
        """Conditioner name -> port name -> tap, for ports of conditioners such as text encoders; empty by default.

        The same rules apply as for `taps`. Conditions are encoded before the run exists, so there is no sigma and
        `frame.context.adapters[name]` is the adapter itself."""
        return {}

    def prepare(self, context: Context, name: str) -> Any:
        """Called once per run; returns what the taps need, stored in `context.adapters[name]`.

        `context.run` holds the sigmas. The signals of the adapter's slots are in `context.signals` under
        `<name>.<slot>` and may be absent. Rows in which `context.present["<name>.<slot>"]` is False must be treated
        as if the condition were not given; of a slot with `has_null` only those in which `context.given` is False
        too, as in the others the signal is the null."""
        return None

    def idle(self, run: Run) -> str | None:
        """Why the adapter has no effect in this run (a scale of 0, an interval that contains no step), used in a
        warning; None if it may have one."""
        return None

    def drops(self, slot: str) -> bool:
        """Whether the input of a slot is dropped with the others even if it is wired with `keep`."""
        return False

    def has_null(self, slot: str) -> bool:
        """Whether the null of a slot's condition is a condition of its own (an encoded black picture), with which the
        adapter acts where guidance drops the input, and in whose place a negative may be given. False: it does nothing
        there."""
        return False

    def tuned(self, **changes: Any) -> Self:
        """A copy that shares the weights and has other options. Each adapter decides which options may be changed."""
        other = copy.copy(self)
        other.config = self.Config.of({**dict(self.config), **changes}, f"{type(self).__name__} config")
        return other


class Fusable(ABC):
    """Mixin for an adapter that only changes weights of layers, so that the changes can be merged into copies of them.

    It taps only `linear.<path>` and `conv.<path>` ports, of the denoiser or of conditioners, acts the same way in every
    run and at every noise level, and takes no conditions.
    """

    @abstractmethod
    def delta(self, port: str, weight: Tensor) -> Tensor:
        """The update to add to the weight of the layer at a tapped port; same shape.

        A linear layer's weight is (outputs, inputs), a convolution's (outputs, inputs, height, width).

        `port` is the port's name, or `conditioners.<name>.linear.<path>` for a port of a conditioner. `weight` is the
        layer's original weight, without other adapters; it must not be modified.

        Raises:
            CompositionError: the adapter cannot be fused with its current options, for example because it is active
                in part of the run only.
        """

    def bias_delta(self, port: str, bias: Tensor) -> Tensor | None:
        """The same for the layer's bias (outputs,), which must not be modified either; None: nothing is added."""
        return None
