"""The source for the folder of one component of diffusers: config.json and weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit import LazyTensor, PartSpec, PipelineSpec, Source, SourceError
from ldmkit.models.source import SlotPart, adapter_only
from ldmkit_checkpoints.component_files import component_tensors
from ldmkit_checkpoints.diffusers.control.folders import READERS
from ldmkit_checkpoints.diffusers.latents import as_in_kandinsky
from ldmkit_checkpoints.diffusers.parts import CODECS, UNETS, codec_component, prior_component, unet_component
from ldmkit_checkpoints.diffusers.unclip.prior import PRIOR
from ldmkit_checkpoints.inventory import Inventory
from ldmkit_checkpoints.unread import ignorable_vae_key
from ldmkit_checkpoints.variants import wanted_variants


class DiffusersComponent(Source):
    """The folder of one component: config.json and weights. Codecs and adapters can be loaded."""

    has_variants = True
    takes = frozenset({"ema"})

    def __init__(
        self, folder: Path, config: Mapping[str, Any], ema: bool | None = None, variant: str | None = None
    ) -> None:
        super().__init__(str(folder))
        chosen, notes = wanted_variants({folder.name: folder}, ema, variant, str(folder))
        tensors = component_tensors(folder, folder, chosen[folder.name])
        self.report.notes += notes
        self.inventory = Inventory(tensors, self.report, str(folder))
        name, where = config.get("_class_name"), f"{folder}/config.json"
        if name in CODECS:
            self.kind, self.component = "codec", codec_component(config, tensors, where)
            self.report.notes += as_in_kandinsky(self.component.spec.config)
        elif name in UNETS:
            self.kind, (self.component, _) = "denoiser", unet_component(config, tensors, None, "length")
        elif name == PRIOR:
            self.kind, self.component = "denoiser", prior_component(config, where, self.inventory)
        else:
            shapes = {key: tensor.shape for key, tensor in tensors.items()}
            self.name, reader = READERS[str(name)]
            self.kind, self.component = "adapter", reader(config, shapes, where)
        self.path = f"adapters.{self.name}" if self.kind == "adapter" else self.kind

    @property
    def spec(self) -> PipelineSpec:
        if self.kind == "adapter":
            raise adapter_only(self.origin)
        if self.kind == "codec":
            raise SourceError("codec-only", "it holds a first stage alone", where=self.origin, fits="ldmkit.load_codec")
        fits = "the folder of a complete pipeline"
        raise SourceError("denoiser-only", "it holds a denoiser alone", where=self.origin, fits=fits)

    @property
    def codec_spec(self) -> PartSpec:
        return self.component.spec if self.kind == "codec" else self.spec.codec

    @property
    def adapters(self) -> Mapping[str, PartSpec]:
        return {self.name: self.component.spec} if self.kind == "adapter" else super().adapters

    def conditioners_of(self, adapter: str) -> Mapping[str, SlotPart]:
        return self.component.slots

    @property
    def part_spec(self) -> PartSpec:
        """The spec of the component."""
        return self.component.spec

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        if part != self.path:
            raise SourceError("no-part", f"there is no part {part!r}", where=self.origin, fits=self.path)
        found = self.inventory.take(part, self.component.keymap)
        self.inventory.ignore_if(lambda key: ignorable_vae_key(key) if self.kind == "codec" else None)
        self.inventory.finish()
        return found
