"""The source for a pipeline's folder of diffusers, with model_index.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit_denoisers.config import UNetConfig

from ldmkit import ConditionerSpec, Defaults, LazyTensor, PartSpec, PipelineSpec, Source, SourceError
from ldmkit_checkpoints.component_files import component_tensors, left_beside, member, read_member_json
from ldmkit_checkpoints.conditioners import given_vector, masked_image
from ldmkit_checkpoints.diffusers.component import DiffusersComponent
from ldmkit_checkpoints.diffusers.components import TOWERS, as_class, check_tokenizer, components_of, control_folders
from ldmkit_checkpoints.diffusers.control.folders import READERS
from ldmkit_checkpoints.diffusers.gligen import PIPELINE as GLIGEN
from ldmkit_checkpoints.diffusers.gligen import gligen_component, layout_conditioner, without_gates
from ldmkit_checkpoints.diffusers.latents import as_applied, quantised, version_of
from ldmkit_checkpoints.diffusers.parts import (
    CODECS,
    UNETS,
    Component,
    codec_component,
    controlnet_component,
    text_component,
    unet_component,
)
from ldmkit_checkpoints.diffusers.pipelines import PIPELINES, unknown_pipeline
from ldmkit_checkpoints.diffusers.scheduler import SchedulerParts, read_scheduler
from ldmkit_checkpoints.diffusers.scheduler_fields import REPAIRS, repaired
from ldmkit_checkpoints.diffusers.unclip.prior import PRIOR
from ldmkit_checkpoints.diffusers.unet_fields import refuse
from ldmkit_checkpoints.inventory import Inventory
from ldmkit_checkpoints.unread import ignorable_conditioner_key, ignorable_vae_key
from ldmkit_checkpoints.unsupported.folders import refuse_other_library
from ldmkit_checkpoints.variants import wanted_variants

INDEX = "model_index.json"

_REFINERS = ("StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline")
"""Pipelines that use `requires_aesthetics_score`."""

_STEPS = {"DDPMPipeline": 1000, "LDMSuperResolutionPipeline": 100}
"""Default steps in a pipeline's code; 50 in all others."""

_TEXT_GUIDANCE = {"clip-text": 7.5, "ldm-text": 5.0, "t5-text": 7.5}


class DiffusersFolder(Source):
    """A pipeline saved by diffusers.

    Args:
        folder: the folder with model_index.json.
        ema: False reads the variant `non_ema` if the folder has it; the default weights are EMA weights by diffusers'
            convention.
        variant: variant of the weights; components without it fall back to their default weights.

    Raises:
        SourceError: an unknown pipeline or component, unsupported options, files that are missing or lead out of the
            folder.
    """

    has_variants = True
    takes = frozenset({"ema"})
    guides_variance = True
    """Whether diffusers' pipeline guides a learned variance with the rest."""

    def __init__(self, folder: Path, ema: bool | None = None, variant: str | None = None) -> None:
        super().__init__(str(folder))
        self.folder = folder
        self.index = self.read_index(folder)
        name = self.index.get("_class_name")
        if not isinstance(name, str) or name not in PIPELINES:
            raise unknown_pipeline(name, f"{folder}/{INDEX}")
        refuse_other_library(self.index, f"{folder}/{INDEX}")
        self._classes, notes = components_of(self.index, f"{folder}/{INDEX}")
        self.report.notes += [*notes, *left_beside(folder)]
        self._configs: dict[str, dict[str, Any]] = {}
        self._inventories: dict[str, Inventory] = {}
        self._components: dict[str, tuple[str, Component]] = {}
        self._tokenizers: dict[str, str] = {}
        self._taken: dict[str, dict[str, LazyTensor]] = {}
        folders = {name: member(self.root(name), name) for name in self._weighted()}
        self._variants, notes = wanted_variants(folders, ema, variant, str(folder))
        self.report.notes += notes
        self._spec = self._compose()

    @property
    def spec(self) -> PipelineSpec:
        return self._spec

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        """The part's tensors; all keys of its component must be accounted for.

        Raises:
            WeightsError: missing, unexpected.
        """
        if part not in self._components:
            return {}
        if part not in self._taken:
            name, _ = self._components[part]
            inventory = self._inventory(name)
            for path, (owner, one) in self._components.items():  # of one file several parts may be made
                if owner == name:
                    self._taken[path] = inventory.take(path, one.keymap)
            inventory.ignore_if(
                lambda key: ignorable_vae_key(key) if part == "codec" else ignorable_conditioner_key(key)
            )
            inventory.finish()
        return self._taken[part]

    def assets(self, part: str) -> Path | None:
        name = self._tokenizers.get(part)
        return None if name is None else self._folder(name)

    def read_index(self, folder: Path) -> dict[str, Any]:
        """model_index.json."""
        return read_member_json(folder, INDEX)

    def root(self, component: str) -> Path:
        """The folder that a component's folder is in."""
        return self.folder

    def pixels(self, unet: Mapping[str, Any]) -> Any:
        """Channels of pictures, without a first stage. There may be twice as many out: a learned variance."""
        return unet.get("in_channels", 3)

    def _compose(self) -> PipelineSpec:
        scheduler = self._scheduler()
        codec, unet, sample_size = self._networks()
        conditioners = self._conditioners(codec, unet)
        guided = any(spec.type in _TEXT_GUIDANCE for spec in conditioners.values())
        if guided and self.guides_variance and scheduler.sampler.config.get("variance") == "learned":
            what = "variance_type learned_range: guidance leaves the variance at the conditional one, as in the papers"
            self.report.notes.append(f"{what}; this pipeline of diffusers guides it with the rest")
        adapters, hints = self._hinted(unet.context_join)
        adapters |= self._gated(unet, conditioners)
        conditioners |= hints
        sample_size = self._repaired_size(sample_size)
        height, width = sample_size if isinstance(sample_size, (list, tuple)) else (sample_size, sample_size)
        size = None if height is None else (int(height) * codec.factor, int(width) * codec.factor)
        return PipelineSpec(
            codec=codec.spec,
            denoiser=self._components["denoiser"][1].spec,
            process=scheduler.process,
            conditioners=conditioners,
            adapters=adapters,
            defaults=Defaults(
                sampler=scheduler.sampler,
                grid=scheduler.grid,
                guidance=_guidance(conditioners, self._is_xl()),
                steps=min(_STEPS.get(str(self.index["_class_name"]), 50), scheduler.process.config.get("steps", 1000)),
                size=size,
            ),
        )

    def _scheduler(self) -> SchedulerParts:
        config = self._config("scheduler", "scheduler_config.json")
        entry, own = self._classes["scheduler"], config.get("_class_name")
        if own not in (None, entry):
            what = f"scheduler: {INDEX} says {entry}, its own config {own}; the former is used, as in diffusers"
            self.report.notes.append(what)
        if self.index["_class_name"] == "DDIMPipeline" and entry != "DDIMScheduler":
            self.report.notes.append(f"scheduler: DDIMPipeline makes DDIMScheduler of {entry}, as in diffusers")
            entry = "DDIMScheduler"
        config = {**config, "_class_name": entry}
        config, changed = repaired(config, str(self.index["_class_name"]))
        self.report.notes += changed
        plan = read_scheduler(config, f"{self.folder}/scheduler")
        self.report.notes += plan.notes
        return plan

    def _repairs(self) -> bool:
        """Whether diffusers' pipeline corrects files written by its first releases."""
        return str(self.index["_class_name"]) in REPAIRS

    def _repaired_size(self, size: Any) -> Any:
        """The U-Net's sample_size; diffusers before 0.9 wrote 32 instead of 64."""
        version = version_of(self._config("unet"))
        old = version is not None and version < (0, 9)
        if not (self._repairs() and old and type(size) is int and size < 64):
            return size
        self.report.notes.append(f"unet: sample_size is {size} in this old file; 64 is used, as in diffusers")
        return 64

    def _networks(self) -> tuple[Component, UNetConfig, Any]:
        names = [name for name in ("vae", "vqvae", "movq") if name in self._classes]
        if names:
            where = f"{self.folder}/{names[0]}/config.json"
            config, notes = as_applied(self._as_class(names[0]), self.index, where)
            self.report.notes += notes
            keys, pipeline = self._inventory(names[0]).tensors, str(self.index["_class_name"])
            codec = codec_component(config, keys, where, quantised(pipeline))
            self._components["codec"] = (names[0], codec)
        config = without_gates(
            self._as_class("unet"), str(self.index["_class_name"]), f"{self.folder}/unet/config.json"
        )
        pixels = None if names else self.pixels(config)
        if not names:
            codec = Component(PartSpec(type="identity", config={"channels": pixels}), {}, int(pixels or 3))
        keys = self._inventory("unet").tensors
        join = "feature" if self._is_xl() else "length"
        if (config.get("addition_embed_type") == "text_time") != self._is_xl():
            fits = "text_time for SDXL pipelines only"
            raise refuse("addition_embed_type", config.get("addition_embed_type"), fits)
        component, unet = unet_component(config, keys, codec.channels, join)
        self._components["denoiser"] = ("unet", component)
        return codec, unet, config.get("sample_size")

    def _conditioners(self, codec: Component, unet: UNetConfig) -> dict[str, ConditionerSpec]:
        found = self._texts()
        if unet.context_dim is not None and not any(spec.type in _TEXT_GUIDANCE for spec in found.values()):
            found["context"] = ConditionerSpec(
                type="given", config={"kind": "tokens", "dim": unet.context_source or unet.context_dim}
            )
        if unet.vector != "none" and not self._is_xl():
            found["vector"] = given_vector(unet)
        plane = unet.plane_channels
        if plane and plane == codec.channels + 1:
            found["masked-image"] = masked_image(codec.channels)
        elif plane == 3 and self.index["_class_name"] == "LDMSuperResolutionPipeline":
            found["image"] = ConditionerSpec(type="image")
        elif plane:
            found["plane"] = ConditionerSpec(type="given", config={"kind": "plane", "dim": plane})
        return found

    def _texts(self) -> dict[str, ConditionerSpec]:
        xl = self._is_xl()
        wiring: dict[str, Any] = {"layer": "penultimate", "final_norm": False} if xl else {}
        if xl and self.index.get("force_zeros_for_empty_prompt", True):
            wiring["null"] = "zero"
        found: dict[str, ConditionerSpec] = {}
        for name in (tower for tower in TOWERS if tower in self._classes):
            part = f"text-{len(found) + 1}" if found else "text"
            more = {**wiring, "input": "text"} if found else wiring
            config, where = self._config(name), f"{self.folder}/{name}/config.json"
            keys, tokenizer = self._inventory(name).tensors, self._folder(TOWERS[name])
            component = text_component(config, keys, tokenizer, where, self._classes[name], **more)
            place = f"{self.folder}/{INDEX}: {TOWERS[name]}"
            check_tokenizer(self._classes.get(TOWERS[name]), _conditioner(component).type, tokenizer, place)
            self._components[f"conditioners.{part}"] = (name, component)
            self._tokenizers[f"conditioners.{part}"] = TOWERS[name]
            found[part] = _conditioner(component)
        if xl and found:
            found |= self._xl_vector(*list(found.items())[-1])
        return found

    def _xl_vector(self, tower: str, spec: ConditionerSpec) -> dict[str, ConditionerSpec]:
        """SDXL's vector: the pooled state of the last tower, and the size codes."""
        self._tokenizers["conditioners.pooled"] = self._tokenizers[f"conditioners.{tower}"]
        own = {key: value for key, value in spec.config.items() if key not in ("layer", "final_norm")}
        pooled = ConditionerSpec(type="clip-pooled", config=own, null=spec.null, input="text", shares=tower)
        refines = str(self.index["_class_name"]) in _REFINERS
        scored = refines and bool(self.index.get("requires_aesthetics_score", False))
        reads = ["original", "crop", "aesthetic" if scored else "target"]
        unet = self._config("unet")
        width = unet.get("addition_time_embed_dim")
        for key, only in (("flip_sin_to_cos", True), ("freq_shift", 0)):  # also apply to the size codes
            if unet.get(key, only) != only:
                raise refuse(key, unet[key], f"{only!r} beside addition_embed_type text_time")
        sizes = ConditionerSpec(type="size-codes", config={"reads": reads, "width": width})
        return {"pooled": pooled, "sizes": sizes}

    def _hinted(self, join: str) -> tuple[dict[str, PartSpec], dict[str, ConditionerSpec]]:
        """The networks that read hints, and what fills their slots."""
        folders = control_folders(self.folder, str(self.index["_class_name"]), self._classes)
        found, hints = dict[str, PartSpec](), dict[str, ConditionerSpec]()
        for i, folder in enumerate(folders):
            name, component = self._control(folder, join)
            number = "" if len(folders) == 1 else f"-{i + 1}"
            self._components[f"adapters.{name}{number}"] = (folder, component)
            found[f"{name}{number}"] = component.spec
            for slot, part in component.slots.items():
                kept = part.spec.model_copy(update={"slot": f"{name}{number}.{slot}", "null": "keep", "input": None})
                hints[f"{slot}{number}"] = kept
        return found, hints

    def _control(self, folder: str, join: str) -> tuple[str, Component]:
        config, where = self._config(folder), f"{self.folder}/{folder}/config.json"
        first = "T2IAdapter" if folder.startswith("adapter") else "ControlNetModel"
        own = config.get("_class_name", first)
        if own not in READERS or (READERS[own][0] == "t2i") != (first == "T2IAdapter") or own == "ControlNetXSAdapter":
            raise SourceError("unsupported", f"unknown ControlNet class {own!r}", where=where)
        if own == "ControlNetModel":
            return "control", controlnet_component(config, join)
        shapes = {key: tensor.shape for key, tensor in self._inventory(folder).tensors.items()}
        return READERS[own][0], READERS[own][1](config, shapes, where)

    def _gated(self, unet: UNetConfig, conditioners: dict[str, ConditionerSpec]) -> dict[str, PartSpec]:
        """GLIGEN's adapter, whose conditioner is added to the others."""
        if self.index["_class_name"] != GLIGEN:
            return {}
        owner = next((name for name, spec in conditioners.items() if spec.type == "clip-text"), None)
        if owner is None:
            what = f"{GLIGEN} reads the phrases of boxes with its text encoder, and has none"
            raise SourceError("unsupported", what, where=f"{self.folder}/{INDEX}: text_encoder", fits="CLIPTextModel")
        component = gligen_component(unet, self._components["denoiser"][1].keymap)
        self._components["adapters.gligen"] = ("unet", component)
        self._tokenizers["conditioners.layout"] = self._tokenizers[f"conditioners.{owner}"]
        conditioners["layout"] = layout_conditioner(conditioners[owner], owner)
        return {"gligen": component.spec}

    def _weighted(self) -> list[str]:
        """Components with weights."""
        return [
            *(name for name in ("vae", "vqvae", "movq", "unet", *TOWERS) if name in self._classes),
            *control_folders(self.folder, str(self.index["_class_name"]), self._classes),
        ]

    def _as_class(self, name: str) -> dict[str, Any]:
        return as_class(self._config(name), self._classes[name], f"{self.folder}/{name}/config.json")

    def _is_xl(self) -> bool:
        return str(self.index["_class_name"]).startswith("StableDiffusionXL")

    def _folder(self, name: str) -> Path | None:
        folder = member(self.root(name), name)
        return folder if folder.is_dir() else None

    def _config(self, component: str, name: str = "config.json") -> dict[str, Any]:
        if component not in self._configs:
            root = self.root(component)
            self._configs[component] = read_member_json(root, f"{component}/{name}", root)
        return self._configs[component]

    def _inventory(self, component: str) -> Inventory:
        if component not in self._inventories:
            root = self.root(component)
            tensors = component_tensors(member(root, component), root, self._variants.get(component, ""))
            where = str(root / component)
            self._inventories[component] = Inventory(tensors, self.report, where, f"{component}:")
        return self._inventories[component]


def open_diffusers(folder: Path, ema: bool | None, variant: str | None = None) -> Source | None:
    """The source for a diffusers pipeline or component folder; None for other folders."""
    if (folder / INDEX).is_file():
        return DiffusersFolder(folder, ema, variant)
    if (folder / "config.json").is_file():
        config = read_member_json(folder, "config.json")
        if config.get("_class_name") in (*CODECS, *UNETS, *READERS, PRIOR):
            return DiffusersComponent(folder, config, ema, variant)
    return None


def _conditioner(component: Component) -> ConditionerSpec:
    assert isinstance(component.spec, ConditionerSpec)
    return component.spec


def _guidance(conditioners: Mapping[str, ConditionerSpec], xl: bool) -> PartSpec:
    scales = [_TEXT_GUIDANCE[spec.type] for spec in conditioners.values() if spec.type in _TEXT_GUIDANCE]
    if not scales:
        return PartSpec(type="none")
    return PartSpec(type="cfg", config={"scale": 5.0 if xl else scales[0]})
