"""Stable unCLIP's folders: Stable Diffusion 2.1 that also reads the noised embedding of a picture."""

from __future__ import annotations

from typing import Any

from ldmkit_denoisers.config import UNetConfig

from ldmkit import ConditionerSpec, PartSpec, PipelineSpec, SourceError, suggest
from ldmkit_checkpoints.diffusers.encoder import IMAGE, EncoderFolder, EncoderParts
from ldmkit_checkpoints.diffusers.parts import Component
from ldmkit_checkpoints.diffusers.scheduler import read_scheduler
from ldmkit_checkpoints.keys import Conversion

PIPELINES = ("StableUnCLIPPipeline", "StableUnCLIPImg2ImgPipeline")
NORMALIZER, NOISING = "image_normalizer", "image_noising_scheduler"

_TABLES = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")
"""Schedulers that add noise by their table alone; the others' also depends on the steps of a run."""
_OF_STEPS = {
    *("variance_type", "clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio"),
    *("sample_max_value", "timestep_spacing", "steps_offset", "skip_prk_steps", "set_alpha_to_one", "prediction_type"),
}
"""Their fields without effect on the noise that they add."""

GUIDANCE, STEPS = 10.0, 20
"""Defaults in the code of both pipelines; the default level is 0."""


class StableUnclipFolder(EncoderFolder):
    """A folder of `StableUnCLIPPipeline` or `StableUnCLIPImg2ImgPipeline`; the prior of the former is another stage."""

    encoder = EncoderParts("image_encoder", "feature_extractor")

    def _weighted(self) -> list[str]:
        if self.encoder is not None and self.encoder.model not in self._classes:
            self.encoder = None  # embeddings only, of a prior
        return [*super()._weighted(), NORMALIZER]

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
        if self.encoder is not None:
            config["encoder"] = self._encoder_fields()
        spec = ConditionerSpec(type="noised-embedding", config=config, slot="vector")
        keymap = {name: Conversion((name,), lambda w: w.flatten(), lambda w: (w[None],)) for name in ("mean", "std")}
        self._components[IMAGE] = (NORMALIZER, Component(spec, keymap))
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
