"""Variants of a pipeline that share its modules: another plan, more adapters, other parts or defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from ldmkit.contracts.adapter import Adapter
from ldmkit.contracts.conditioner import Conditioner
from ldmkit.errors import CompositionError, shown, suggest, warn
from ldmkit.models.compose import Parts
from ldmkit.models.composed import Composed
from ldmkit.models.derived import check_exact, check_plan, derived, extended, kept_placed, replanned
from ldmkit.models.fusing import fused_parts
from ldmkit.models.learnt import learnt_parts, read_words
from ldmkit.models.placement import Placement
from ldmkit.models.placing import placed_parts, unplaced
from ldmkit.models.updates import OPTIONS, Attachment, asked_defaults, free_name, read_adapter, read_update


class Varied(Composed):
    """The methods of a pipeline that return a variant of it; none of them modifies it."""

    def planned(self, plan: str) -> Self:
        """A new pipeline on the same modules that calls the network through an execution plan.

        Args:
            plan: "eager", "compiled" and "graphed" (both for CUDA), "auto" (the one measured to be fastest on the
                device), or another plan of the denoiser: the U-Net adds "prepacked" and "exported" for the CPU.

        Raises:
            CompositionError: `unknown-plan`, `plan-unavailable`; `plan-placed`: the network's weights are not always
                there, see `placed`. A run after the weights changed or moved raises `stale-plan`.
        """
        check_plan(self.denoiser, plan)
        return self._varied(self.parts, network=self.denoiser.plan(plan), plan=plan)

    def placed(self, placement: Placement | str | Mapping[str, Any] | Sequence[str]) -> Self:
        """A new pipeline whose parts keep their weights elsewhere, in another dtype or as 8-bit integers.

        Parts that are placed are copies, on the same tensors where these stay in memory: drop this pipeline, and what
        the placement leaves elsewhere is free. Where dtypes stay the pixels do too. What may not be done to weights
        that are elsewhere (writing to them, other plans, training, pickling) is refused.

        Args:
            placement: "low-memory" (conditioners and codec are there while they compute), "lowest-memory" (and the
                network block by block); or parts: "text:after-encoding+bfloat16", {"denoiser": "streamed"}, or a
                `Placement`, which can also say on which device to compute. {}: everything is always there again.

        Raises:
            InputError: `placement`, `unknown-part`.
            CompositionError: `plan-placed`, `placement-shared`; `placed-rounded`: it is placed already in a way that
                changed its numbers.
            RunError: `busy`: a run has fetched weights of this placed pipeline.
        """
        wanted = Placement.read(placement)
        check_exact(self.rounded, "place")
        parts, rounded = placed_parts(unplaced(self.parts), self.wiring, wanted)
        network = replanned(self, parts)
        return self._varied(parts, network=network, placement=wanted, rounded=rounded, unfused=None)

    def with_adapter(self, name: str, adapter: Adapter, conditioners: Mapping[str, Conditioner]) -> Self:
        """A new pipeline on the same modules with one more adapter; `conditioners` maps its slots to conditioners.

        Raises:
            InputError: `name-taken`.
            CompositionError: it does not fit the denoiser (`other-network`, `unknown-port`).
        """
        return type(self)(**extended(self, name, adapter, conditioners))

    def with_lora(
        self,
        source: str | Path,
        scale: float = 1.0,
        *,
        name: str | None = None,
        scales: Mapping[str, float] | None = None,
        start: float = 0.0,
        end: float = 1.0,
    ) -> Self:
        """A new pipeline on the same modules with the changes of a LoRA's file attached; several add up.

        Args:
            source: a file or folder in a dialect of kohya's scripts, diffusers or peft: LoRA, LoCon, LoHa, LoKr, DoRA,
                full differences.
            scale: of all changes; `tuned(name, scale=...)` changes it without reading the file again.
            name: of the adapter; None: the file's.
            scales: further factors for layers by the beginning of their path, as {"down": 0.5, "conditioners.text": 0}.
            start, end: the part of the run, in fractions of its steps, in which the denoiser is changed.

        Raises:
            SourceError: `unrecognised`; `other-base`: it was made for another model.
            InputError: `name-taken`; SpecError: options out of their range.
        """
        options: dict[str, Any] = {"scale": scale, "scales": dict(scales or {}), "start": start, "end": end}
        changed = {key: value for key, value in options.items() if value != OPTIONS[key]}
        return self._attached(read_update(self, source, changed), source, name)

    def with_adapter_file(self, source: str | Path, *, name: str | None = None, **options: Any) -> Self:
        """A new pipeline on the same modules with the adapter in a file attached, and an input for each of its slots.

        The inputs have the names that the file's reader gives them (`hint`), with a number where one is taken
        (`hint-2`). See `with_lora` for changes of weights.

        Args:
            source: a ControlNet or another adapter, as `ldmkit.load_adapter` reads it, or one that a plugin reads for
                this pipeline.
            name: of the adapter; None: the file's.
            options: fields of the adapter's config (`scale`, `start`, `end` ...), and further files that its reader
                wants (`config`: the yaml of a ControlNet's file); `tuned(name, ...)` changes the former later.

        Raises:
            SourceError: `unrecognised`, `no-adapter`; one for another model.
            InputError: `name-taken`, `adapter-name`; SpecError: unknown options, or out of their range.
            CompositionError: it does not fit the denoiser (`other-network`, `unknown-port`, `empty-slot`).
        """
        return self._attached(read_adapter(self, source, options), source, name)

    def _attached(self, found: Attachment, source: str | Path, name: str | None) -> Self:
        taken = {*self.adapters, *self.wiring, *self.inputs, *found.inputs.values()}
        name = free_name(source, taken) if name is None else name
        made = extended(self, name, found.adapter, found.conditioners, found.inputs, found.shares)
        made["defaults"] = asked_defaults(self.defaults, found)
        kept: dict[str, Any] = {"origin": self.origin, "load_options": self.load_options}
        return type(self)(**made, **kept, updates=(*self.updates, {"name": name, **found.record}))

    def with_embedding(self, source: str | Path, token: str | None = None) -> Self:
        """A new pipeline whose prompts know a learnt word (textual inversion); this one stays as it was.

        The text encoders are copies that share all tensors but the table of their words. The word is found in prompts
        and negatives in upper and lower case, and counts as many tokens as it has vectors.

        Args:
            source: a file or folder as A1111, kohya's scripts or diffusers write it, also for SDXL's two text encoders.
            token: the word; None: as the file names it, or else the name of the file.

        Raises:
            SourceError: `unrecognised`; `other-base`, `half-a-pair`: it was made for other text encoders.
            InputError: `token-taken`: the word means something already; `no-vocabulary`; `several-tokens`.
            WeightsError: `wrong-shape`, `not-finite`.
            CompositionError: `placed-rounded`.
        """
        check_exact(self.rounded, "teach")
        words = read_words(source, token)
        placed = kept_placed(self, learnt_parts(self.parts, self.wiring, words))
        return self._varied(**placed, unfused=None, updates=(*self.updates, words.record))

    def with_(self, **changes: Any) -> Self:
        """A new pipeline with some parts or defaults replaced; all else is shared, and the wiring is kept.

        In contrast, `Pipeline.of(conditioners=pipe.conditioners, ...)` routes all conditioners again, by kind only.

        Args:
            changes: `codec`, `denoiser`, `process`; `conditioners` as name -> part, each of which is added or replaces
                the one of that name (None removes it); `wiring` for these; and the defaults of calls (`sampler`,
                `grid`, `guidance`, `steps`, `size`, `locked`) as names, values or specs.

        Raises:
            InputError: `unknown-argument`.
            CompositionError: two parts are incompatible; the message names both.
        """
        return type(self)(**derived(self, changes))

    def tuned(self, name: str, **changes: Any) -> Self:
        """A new pipeline that shares all modules, with other options for the adapter `name` (scale, start, end ...).

        Raises:
            CompositionError: there is no such adapter.
        """
        if not isinstance(name, str) or name not in self.adapters:
            raise CompositionError("unknown-adapter", f"no adapter {shown(name)}", fits=suggest(name, self.adapters))
        adapters = {**self.adapters, name: self.adapters[name].tuned(**changes)}
        return self._varied(replace(self.parts, adapters=adapters))

    def fused(self, *names: str) -> Self:
        """A new pipeline with adapters merged into copies of the weights that they act on; other tensors are shared.

        Its results agree with this pipeline's up to rounding, at the speed of a pipeline without adapters. Its
        `unfused` returns this pipeline.

        Args:
            names: adapters to fuse; without names, all that can be fused. The others stay attached.

        Raises:
            CompositionError: `unknown-adapter`; `not-fusable`: an adapter does not only add to linear layers, or there
                is none to fuse; `placed-rounded`.
        """
        check_exact(self.rounded, "fuse")
        parts, merged = fused_parts(self.parts, self.wiring, names)
        parts = kept_placed(self, parts)["parts"]
        made: dict[str, Any] = {"network": replanned(self, parts), "unfused": self, "merged": (*self.merged, *merged)}
        return self._varied(parts, origin=None, load_options=None, updates=(), **made)

    def unfused(self) -> Self:
        """The pipeline that this one was fused from, with its adapters attached and its own weights.

        Raises:
            CompositionError: `not-fused`.
        """
        if self._unfused is None:
            raise CompositionError("not-fused", "this pipeline was not made by `fused`", fits="a pipeline.fused(...)")
        here, there = ((one.denoiser.dtype, one.denoiser.device) for one in (self, self._unfused))
        if here != there:
            what = f"the pipeline before `fused` is not where this one was moved: {there[0]} on {there[1]}"
            warn(f"{what}, this one is {here[0]} on {here[1]}; .unfused().to(...) moves it too")
        return self._unfused

    def _varied(self, parts: Parts, **changes: Any) -> Self:
        """A copy of this pipeline with other parts."""
        kept: dict[str, Any] = {"origin": self.origin, "load_options": self.load_options, "network": self.network}
        kept |= {"plan": self.plan, "unfused": self._unfused, "merged": self.merged, "updates": self.updates}
        kept |= {"placement": self.placement, "rounded": self.rounded}
        return type(self)(parts, self.wiring, self.defaults, **{**kept, **changes})
