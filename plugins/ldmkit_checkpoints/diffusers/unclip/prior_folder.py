"""The prior of a diffusers pipeline as a pipeline of its own: Kandinsky 2.2's and Stable unCLIP's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit import ConditionerSpec, Defaults, LazyTensor, PartSpec, PipelineSpec, SourceError
from ldmkit_checkpoints.diffusers.components import as_class, check_tokenizer
from ldmkit_checkpoints.diffusers.folder import INDEX, DiffusersFolder
from ldmkit_checkpoints.diffusers.parts import Component, prior_component, text_component
from ldmkit_checkpoints.diffusers.scheduler import SchedulerParts, read_scheduler
from ldmkit_checkpoints.diffusers.unclip.prior import PRIOR, check_lazy_statistics, statistics_keys

GUIDANCE, STEPS = 4.0, 25
"""Defaults in the code of these pipelines."""


ROLES = ("prior", "text_encoder", "tokenizer", "scheduler")
"""Components of a prior's pipeline; where a decoder stands beside it, their names have a prefix."""


class PriorFolder(DiffusersFolder):
    """Texts -> embeddings of pictures: the prior network, its text encoder and its scheduler.

    Args:
        names: role -> component: `prior`, `text_encoder`, `tokenizer`, `scheduler`.
        folder, ema, variant: as for `DiffusersFolder`.
    """

    def __init__(
        self, folder: Path, ema: bool | None = None, variant: str | None = None, names: Mapping[str, str] | None = None
    ) -> None:
        self._names = dict(names) if names is not None else {role: role for role in ROLES}
        super().__init__(folder, ema, variant)

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        """As for all folders; statistics of zeros are refused here, before anything runs."""
        found = super().tensors(part)
        if part == "codec":
            check_lazy_statistics(found, f"{self.folder}/{self._names['prior']}")
        return found

    def _weighted(self) -> list[str]:
        return [self._names["prior"], self._names["text_encoder"]]

    def _compose(self) -> PipelineSpec:
        scheduler, name = self._scheduler(), self._names["prior"]
        where = f"{self.folder}/{name}/config.json"
        prior = prior_component(as_class(self._config(name), PRIOR, where), where)
        codec = PartSpec(type="embedding", config={"dim": prior.channels})
        self._components["codec"] = (name, Component(codec, statistics_keys()))
        self._components["denoiser"] = (name, prior)
        return PipelineSpec(
            codec=codec,
            denoiser=prior.spec,
            process=scheduler.process,
            conditioners=self._texts(),
            defaults=Defaults(
                sampler=scheduler.sampler,
                grid=scheduler.grid,
                guidance=PartSpec(type="cfg", config={"scale": GUIDANCE}),
                steps=min(STEPS, scheduler.process.config.get("steps", 1000)),
            ),
        )

    def _scheduler(self) -> SchedulerParts:
        name = self._names["scheduler"]
        config = {**self._config(name, "scheduler_config.json"), "_class_name": self._classes[name]}
        plan = read_scheduler(config, f"{self.folder}/{name}")
        if self._classes[name] == "UnCLIPScheduler" and self.index["_class_name"] == "StableUnCLIPPipeline":
            what = "UnCLIPScheduler moves a single timestep in each step of diffusers' StableUnCLIPPipeline"
            self.report.notes.append(f"{name}: {what}; here a step goes to the next timestep of the grid")
        self.report.notes += plan.notes
        return plan

    def _texts(self) -> dict[str, ConditionerSpec]:
        """The tokens with their mask, and the projected state of the same encoder."""
        name, words = self._names["text_encoder"], self._names["tokenizer"]
        where, cls, folder = f"{self.folder}/{name}/config.json", self._classes[name], self._folder(words)
        if cls != "CLIPTextModelWithProjection":
            what = f"the prior's text encoder is {cls}"
            raise SourceError("unsupported", what, where=where, fits="CLIPTextModelWithProjection")
        keys = self._inventory(name).tensors
        component = text_component(self._config(name), keys, folder, where, cls, masked=True)
        spec = component.spec
        assert isinstance(spec, ConditionerSpec)
        check_tokenizer(self._classes.get(words), spec.type, folder, f"{self.folder}/{INDEX}: {words}")
        own = {key: value for key, value in spec.config.items() if key not in ("layer", "final_norm", "masked")}
        self._components["conditioners.text"] = (name, component)
        self._tokenizers |= {"conditioners.text": words, "conditioners.pooled": words}
        pooled: dict[str, Any] = {"input": "text", "shares": "text", "slot": "vector"}
        return {"text": spec, "pooled": ConditionerSpec(type="clip-pooled", config=own, **pooled)}
