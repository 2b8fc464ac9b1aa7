"""The state of a pipeline: compatible parts, their wiring, and the network to call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import torch

from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.step import Network
from ldmkit.models.compose import Parts, part_spec
from ldmkit.models.fixed import Fixed
from ldmkit.models.placement import Placement
from ldmkit.models.provenance import stamped_defaults
from ldmkit.models.routing import input_owners
from ldmkit.models.spec import ConditionerSpec, Defaults, PartSpec, PipelineSpec


class Composed:
    """Parts and their wiring; `ldmkit.Pipeline` adds the operations.

    Nothing can be assigned once it is made, and its mappings are read-only: see `Varied` for pipelines like another.

    Attributes:
        spec: the spec of the pipeline, with the distribution and version of every part.
        codec, denoiser, conditioners, adapters, process: the parts.
        wiring: conditioner name -> slot, null, input.
        origin: the source that it was loaded from, as an argument for `ldmkit.load`; None if built in memory.
        load_options: the other arguments given to that `ldmkit.load` (config, ema, variant, dtype).
        plan: the name of the execution plan; `network` is its callable, or None for the denoiser itself.
        merged: names of the adapters fused into its weights (see `Pipeline.fused`); recorded in recipes.
        placement: where its parts keep their weights (see `Pipeline.placed`).
        rounded: path of a part -> the fields of its placement that change its results; recorded in recipes.
        updates: name or tokens, source and SHA-256 of the file of everything attached by `Pipeline.with_lora`,
            `with_adapter_file` and `with_embedding`.
    """

    def __init__(
        self,
        parts: Parts,
        wiring: Mapping[str, ConditionerSpec],
        defaults: Defaults,
        *,
        origin: str | None = None,
        load_options: Mapping[str, Any] | None = None,
        network: Network | None = None,
        plan: str = "eager",
        unfused: Self | None = None,
        merged: tuple[str, ...] = (),
        placement: Placement | None = None,
        rounded: Mapping[str, Mapping[str, str]] | None = None,
        updates: tuple[Mapping[str, Any], ...] = (),
    ) -> None:
        parts = replace(parts, conditioners=Fixed(parts.conditioners), adapters=Fixed(parts.adapters))
        self.parts = parts
        self.codec, self.denoiser, self.process = parts.codec, parts.denoiser, parts.process
        self.conditioners, self.adapters = parts.conditioners, parts.adapters
        self.wiring = Fixed(wiring)
        self.defaults = defaults
        self.origin, self.load_options = origin, Fixed(load_options or {})
        self.network, self.plan = network, plan
        self._unfused, self.merged, self.updates = unfused, merged, updates
        self.placement = placement or Placement()
        self.rounded = Fixed({path: Fixed(fields) for path, fields in (rounded or {}).items()})
        self._ready()

    def _ready(self) -> None:
        """Called at the end of `__init__`."""

    @property
    def spec(self) -> PipelineSpec:
        """The spec of this pipeline; a copy, so that nothing done to it changes what is saved."""
        return self._spec.model_copy(deep=True)

    @cached_property
    def _spec(self) -> PipelineSpec:
        conditioners = {}
        for name, part in self.conditioners.items():
            conditioners[name] = ConditionerSpec(
                **part_spec("conditioner", part).model_dump(), **self.wiring[name].wiring
            )
        return PipelineSpec(
            codec=part_spec("codec", self.codec),
            denoiser=part_spec("denoiser", self.denoiser),
            process=part_spec("process", self.process),
            conditioners=conditioners,
            adapters={name: part_spec("adapter", part) for name, part in self.adapters.items()},
            defaults=stamped_defaults(self.defaults),
        )

    @property
    def inputs(self) -> dict[str, Conditioner]:
        """Input name -> the conditioner that reads it; where several do, the first in spec order."""
        return input_owners(self.conditioners, self.wiring)

    @property
    def part_specs(self) -> dict[str, PartSpec]:
        """Every part's spec by its path: `codec`, `conditioners.text` ..."""
        return self.spec.parts()

    @property
    def device(self) -> torch.device:
        """The denoiser's device."""
        return self.denoiser.device
