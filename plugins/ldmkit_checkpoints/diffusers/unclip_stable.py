"""Stable unCLIP's folders: Stable Diffusion 2.1 that also reads the noised embedding of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit_denoisers.config import UNetConfig

from ldmkit import ConditionerSpec, LazyTensor, PartSpec, PipelineSpec, SourceError, suggest
from ldmkit_checkpoints.diffusers.folder import DiffusersFolder
from ldmkit_checkpoints.diffusers.parts import Component
from ldmkit_checkpoints.diffusers.scheduler import read_scheduler
from ldmkit_checkpoints.keys import Conversion
from ldmkit_checkpoints.transformers.vision import (
    CONFIG,
    PREPROCESSOR,
    clip_image_config,
    ignorable_vision_key,
    vision_keys,
    vision_level,
)

PIPELINES = ("StableUnCLIPPipeline", "StableUnCLIPImg2ImgPipeline")
NORMALIZER, NOISING, ENCODER, PICTURES = (
    "image_normalizer",
    "image_noising_scheduler",
    "image_encoder",
    "feature_extractor",
)
_PART = "conditioners.image"

_TABLES = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")
"""Schedulers that add noise by their table alone; the others' also depends on the steps of a run."""
_OF_STEPS = {
    *("variance_type", "clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio"),
    *("sample_max_value", "timestep_spacing", "steps_offset", "skip_prk_steps", "set_alpha_to_one", "prediction_type"),
}
"""Their fields without effect on the noise that they add."""

GUIDANCE, STEPS = 10.0, 20
"""Defaults in the code of both pipelines; the default level is 0."""


class StableUnclipFolder(DiffusersFolder):
    """A folder of `StableUnCLIPPipeline` or `StableUnCLIPImg2ImgPipeline`; the prior of the former is another stage."""

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        """As for all folders; the tensors of `conditioners.image` are in two of them."""
        if part != _PART or part in self._taken or ENCODER not in self._classes:
            return super().tensors(part)
        found = dict(super().tensors(part))
        inventory = self._inventory(ENCODER)
        found |= inventory.take(part, self._encoder[1])
        inventory.ignore_if(ignorable_vision_key)
        inventory.finish()
        self._taken[part] = found
        return found

    def _weighted(self) -> list[str]:
        return [*super()._weighted(), *(name for name in (NORMALIZER, ENCODER) if name in self._classes)]

    def _compose(self) -> PipelineSpec:
        spec = super()._compose()
        steps = min(STEPS, spec.process.config.get("steps", 1000))
        guidance = PartSpec(type="cfg", config={"scale": GUIDANCE})
        return spec.model_copy(
            update={"defaults": spec.defaults.model_copy(update={"guidance": guidance, "steps": steps})}
        )

    def _conditioners(self, codec: Component, unet: UNetConfig) -> dict[str, ConditionerSpec]:
        found = super()._conditioners(codec, unet)
        if found.pop("vector", None) is None:
            what = f"{self.index['_class_name']} has a U-Net that reads no embedding"
            fits = "class_embed_type projection"
            raise SourceError("unsupported", what, where=f"{self.folder}/unet/config.json: class_embed_type", fits=fits)
        config: dict[str, Any] = {"dim": self._dim(), "process": self._noise()}
        if ENCODER in self._classes:
            config["encoder"] = self._encoder[0]
        spec = ConditionerSpec(type="noised-embedding", config=config, slot="vector")
        keymap = {name: Conversion((name,), lambda w: w.flatten(), lambda w: (w[None],)) for name in ("mean", "std")}
        self._components[_PART] = (NORMALIZER, Component(spec, keymap))
        found["image"] = spec
        return found

    def _dim(self) -> int:
        config, where = self._config(NORMALIZER), f"{self.folder}/{NORMALIZER}/config.json"
        for key in config:
            if not key.startswith("_") and key != "embedding_dim":
                fits = suggest(key, ["embedding_dim"])
                raise SourceError("unknown-key", f"unknown key {key!r}", where=f"{where}.{key}", fits=fits)
        dim = config.get("embedding_dim", 768)
        if type(dim) is not int or dim < 1:
            what = f"embedding_dim {dim!r}"
            raise SourceError("invalid", what, where=f"{where}.embedding_dim", fits="a positive integer")
        return dim

    def _noise(self) -> dict[str, Any]:
        """The process whose noise the embedding gets."""
        name, where = self._classes[NOISING], f"{self.folder}/{NOISING}"
        if name not in _TABLES:
            what, fits = f"noise on embeddings by {name}", ", ".join(_TABLES)
            raise SourceError("unsupported", what, where=where, fits=fits)
        config = {**self._config(NOISING, "scheduler_config.json"), "_class_name": _TABLES[0]}
        table = {key: value for key, value in config.items() if key not in _OF_STEPS}
        # x0, because no network predicts this noise: any table is fine
        return read_scheduler({**table, "prediction_type": "sample"}, where).process.model_dump(mode="json")

    @property
    def _encoder(self) -> tuple[dict[str, Any], Any]:
        """Config of the encoder as `clip-image` has it, and its keys."""
        data, told = self._config(ENCODER), self._folder(PICTURES)
        stated = None
        if told is not None and (told / PREPROCESSOR).is_file():
            stated = self._config(PICTURES, PREPROCESSOR)
        read = clip_image_config(data, stated, "projected", f"{self.folder}/{ENCODER}/{CONFIG}", str(told))
        keys = vision_keys(read, vision_level(self._inventory(ENCODER).tensors))
        return read.model_dump(mode="json", exclude_defaults=True) | {"projection": read.projection}, keys
