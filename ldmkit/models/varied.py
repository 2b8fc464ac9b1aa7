"""Pipelines like another one, on the same modules: another plan, more adapters, other parts or defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from ldmkit.contracts.adapter import Adapter
from ldmkit.contracts.conditioner import Conditioner
from ldmkit.errors import CompositionError, shown, suggest
from ldmkit.models.compose import Parts
from ldmkit.models.composed import Composed
from ldmkit.models.derived import derived, extended
from ldmkit.models.fusing import fused_parts


class Varied(Composed):
    """A pipeline's ways to make others from it; none of them changes it."""

    def planned(self, plan: str) -> Self:
        """A new pipeline on the same modules that calls the network by an execution plan.

        Args:
            plan: "eager", "compiled" and "graphed" (both for CUDA), "auto" (the fastest that was measured for the
                device), or what else the denoiser offers: the U-Net adds "prepacked" and "exported" on the CPU.

        Raises:
            CompositionError: `unknown-plan`, `plan-unavailable`. A run after the weights changed or moved
                raises `stale-plan`.
        """
        return self._varied(self.parts, network=self.denoiser.plan(plan), plan=plan)

    def with_adapter(self, name: str, adapter: Adapter, conditioners: Mapping[str, Conditioner]) -> Self:
        """A new pipeline on the same modules with one more adapter; `conditioners` fill its slots by slot name.

        Raises:
            InputError: `name-taken`.
            CompositionError: it does not fit the denoiser (`other-network`, `unknown-port`).
        """
        return type(self)(**extended(self, name, adapter, conditioners))

    def with_(self, **changes: Any) -> Self:
        """A new pipeline on the same modules with some parts or defaults exchanged; the wiring stays.

        `Pipeline.of(conditioners=pipe.conditioners, ...)` would route all conditioners anew, by their kinds alone.

        Args:
            changes: `codec`, `denoiser`, `process`; `conditioners`, name -> part, put beside those there are, or in
                the place of one of that name, and None leaves one out; `wiring` of these; and the defaults of calls
                (`sampler`, `grid`, `guidance`, `steps`, `size`, `locked`), as names, values or specs.

        Raises:
            InputError: `unknown-argument`; CompositionError: parts that do not fit, both named.
        """
        return type(self)(**derived(self, changes))

    def tuned(self, name: str, **changes: Any) -> Self:
        """A new pipeline on the same modules, with other options of the adapter `name` (scale, start, end ...).

        Raises:
            CompositionError: there is no such adapter.
        """
        if not isinstance(name, str) or name not in self.adapters:
            raise CompositionError("unknown-adapter", f"no adapter {shown(name)}", fits=suggest(name, self.adapters))
        adapters = {**self.adapters, name: self.adapters[name].tuned(**changes)}
        return self._varied(replace(self.parts, adapters=adapters))

    def fused(self, *names: str) -> Self:
        """A new pipeline with adapters added to copies of the weights that they act on; all other tensors are shared.

        It draws what this one draws up to rounding, at the speed of one without adapters; `unfused` is this one again.

        Args:
            names: of adapters; none: all that can be fused. The others stay attached.

        Raises:
            CompositionError: `unknown-adapter`; `not-fusable`: one that does more than add to linear layers, or none.
        """
        parts, merged = fused_parts(self.parts, self.wiring, names)
        network = None if self.network is None else parts.denoiser.plan(self.plan)
        made: dict[str, Any] = {"network": network, "unfused": self, "merged": (*self.merged, *merged)}
        return self._varied(parts, origin=None, load_options=None, **made)

    def unfused(self) -> Self:
        """The pipeline that this one was fused from, with its adapters attached and its own weights.

        Raises:
            CompositionError: `not-fused`.
        """
        if self._unfused is None:
            raise CompositionError("not-fused", "this pipeline was not made by `fused`", fits="pipeline.fused() before")
        return self._unfused

    def _varied(self, parts: Parts, **changes: Any) -> Self:
        """A pipeline like this one on other parts; adapters of the same names are attached already."""
        kept: dict[str, Any] = {"origin": self.origin, "load_options": self.load_options, "network": self.network}
        kept |= {"plan": self.plan, "unfused": self._unfused, "merged": self.merged}
        return type(self)(parts, self.wiring, self.defaults, **{**kept, **changes})
