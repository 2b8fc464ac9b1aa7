"""Karlo's folders, written by diffusers' UnCLIPPipeline and UnCLIPImageVariationPipeline, as cascades."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit_denoisers.config import UNetConfig

from ldmkit import (
    CascadeSource,
    CascadeSpec,
    ConditionerSpec,
    Defaults,
    LazyTensor,
    PartSpec,
    PipelineSpec,
    Source,
    SourceError,
    StageSpec,
    shown,
)
from ldmkit.models.source import LoadReport
from ldmkit_checkpoints.component_files import component_tensors, left_beside, member, read_member_json
from ldmkit_checkpoints.diffusers.components import as_class, check_tokenizer, components_of
from ldmkit_checkpoints.diffusers.parts import Component, text_component, unet_component
from ldmkit_checkpoints.diffusers.scheduler import SchedulerParts, read_scheduler
from ldmkit_checkpoints.diffusers.scheduler_fields import UNCLIP
from ldmkit_checkpoints.diffusers.unclip.prior import PRIOR, check_lazy_statistics, statistics_keys
from ldmkit_checkpoints.diffusers.unclip.prior_folder import PriorFolder
from ldmkit_checkpoints.diffusers.unclip.text_proj import NULL, TEXT_PROJ, text_proj_keys, with_text_proj
from ldmkit_checkpoints.inventory import Inventory
from ldmkit_checkpoints.keys import KeyMap
from ldmkit_checkpoints.parts_source import PartsSource, Piece
from ldmkit_checkpoints.transformers.vision import (
    PREPROCESSOR,
    clip_image_config,
    ignorable_vision_key,
    vision_keys,
    vision_level,
)
from ldmkit_checkpoints.unread import ignorable_conditioner_key
from ldmkit_checkpoints.variants import wanted_variants

INDEX = "model_index.json"
PIPELINES = ("UnCLIPPipeline", "UnCLIPImageVariationPipeline")

CLASSES = {
    "prior": PRIOR,
    "prior_scheduler": UNCLIP,
    "text_encoder": "CLIPTextModelWithProjection",
    "text_proj": TEXT_PROJ,
    "image_encoder": "CLIPVisionModelWithProjection",
    "decoder": "UNet2DConditionModel",
    "super_res_first": "UNet2DModel",
    "super_res_last": "UNet2DModel",
    "decoder_scheduler": UNCLIP,
    "super_res_scheduler": UNCLIP,
}
"""Component -> the only class that it may have; tokenizers and what prepares pictures are checked when read."""

STEPS = {"prior": 25, "decoder": 25, "enlarged": 7}
GUIDANCE = {"prior": 4.0, "decoder": 8.0}
"""Defaults in the code of both pipelines."""

_WEIGHTED = ("prior", "decoder", "text_encoder", "text_proj", "image_encoder", "super_res_first", "super_res_last")


class KarloFolder(CascadeSource):
    """A prior (if the pipeline has one), its decoder, and the enlargement by two networks.

    Args:
        folder: the folder with model_index.json.
        ema, variant: as for every diffusers folder.

    Raises:
        SourceError: a component that is missing or of another class, unsupported options.
    """

    has_variants = True
    takes = frozenset({"ema"})

    def __init__(self, folder: Path, ema: bool | None = None, variant: str | None = None) -> None:
        super().__init__(str(folder))
        self.folder = folder
        self.index = read_member_json(folder, INDEX)
        self._classes, notes = components_of(self.index, f"{folder}/{INDEX}")
        self._check_classes()
        self.report.notes += [*notes, *left_beside(folder)]
        self.has_prior = "prior" in self._classes
        folders = {name: member(folder, name) for name in _WEIGHTED if name in self._classes}
        self._variants, notes = wanted_variants(folders, ema, variant, str(folder))
        self.report.notes += notes
        self._files: dict[str, Mapping[str, LazyTensor]] = {}
        self._stages: dict[str, Source] = {"decoder": self._decoder(), "enlarged": self._enlarged()}
        if self.has_prior:
            names = {name: name for name in ("prior", "text_encoder", "tokenizer")}
            self._stages["prior"] = PriorFolder(folder, ema, variant, {**names, "scheduler": "prior_scheduler"})

    @property
    def cascade(self) -> CascadeSpec:
        shared = {f"conditioners.{name}": f"prior.conditioners.{name}" for name in ("text", "pooled")}
        decoder = StageSpec(inputs={"image": "prior"}, shares=shared) if self.has_prior else StageSpec()
        first = {"prior": StageSpec()} if self.has_prior else {}
        return CascadeSpec(stages={**first, "decoder": decoder, "enlarged": StageSpec(inputs={"small": "decoder"})})

    def stage(self, name: str) -> Source:
        return self._stages[name]

    def _decoder(self) -> PartsSource:
        component, plain = self._unet("decoder")
        unet = self._projected(plain)
        texts, pieces, folders = self._texts()
        image: dict[str, Any] = {"dim": unet.image_dim, "null": "learned"}
        pieces["conditioners.image"] = [Piece("text_proj", NULL)]
        if self.has_prior:
            image["norm"] = self._usual_norm()
        else:
            image["encoder"], keymap = self._encoder()
            pieces["conditioners.image"].append(Piece("image_encoder", keymap, ignorable_vision_key))
        own = [Piece("decoder", component.keymap), Piece("text_proj", text_proj_keys(unet))]
        conditioners = {**texts, "image": ConditionerSpec(type="picture-embedding", config=image, slot="image")}
        spec = self._spec(
            "decoder",
            PartSpec(type="identity"),
            PartSpec(type="unet", config=unet.model_dump(mode="json", exclude_defaults=True)),
            self._scheduler("decoder_scheduler", unet.out_channels == 2 * unet.channels),
            conditioners,
            self._size("decoder"),
        )
        return self._source(spec, pieces | {"denoiser": own}, folders)

    def _enlarged(self) -> PartsSource:
        found = {way: self._unet(f"super_res_{way}")[0] for way in ("first", "last")}
        small, large = self._size("decoder")[0], self._size("super_res_first")[0]
        if large % small:
            what = f"pictures of {small} pixels are enlarged to {large}"
            raise SourceError("unsupported", what, where=f"{self.folder}/super_res_first/config.json: sample_size")
        image = {"enlarge": large // small, "method": "bicubic", "antialias": True}
        spec = self._spec(
            "enlarged",
            PartSpec(type="identity"),
            PartSpec(type="two-networks", config={way: one.spec.model_dump(mode="json") for way, one in found.items()}),
            self._scheduler("super_res_scheduler", False),
            {"small": ConditionerSpec(type="image", config=image)},
            (large, large),
        )
        keys = [Piece(f"super_res_{way}", _below(way, one.keymap)) for way, one in found.items()]
        return self._source(spec, {"denoiser": keys}, {})

    def _texts(self) -> tuple[dict[str, ConditionerSpec], dict[str, list[Piece]], dict[str, Path]]:
        """The text encoder as tokens with the tokenizer's mask, and as the projected vector."""
        name, words = "text_encoder", member(self.folder, "tokenizer")
        config, where = self._config(name), f"{self.folder}/{name}/config.json"
        component = text_component(config, self._tensors(name), words, where, CLASSES[name], masked=True)
        check_tokenizer(self._classes["tokenizer"], "clip-text", words, f"{self.folder}/{INDEX}: tokenizer")
        text = component.spec
        assert isinstance(text, ConditionerSpec)
        own = {key: value for key, value in text.config.items() if key not in ("layer", "final_norm", "masked")}
        pooled = ConditionerSpec(type="clip-pooled", config=own, input="text", shares="text", slot="vector")
        pieces = {"conditioners.text": [Piece(name, component.keymap, ignorable_conditioner_key)]}
        folders = dict.fromkeys(("conditioners.text", "conditioners.pooled"), words)
        return {"text": text, "pooled": pooled}, pieces, folders

    def _unet(self, name: str) -> tuple[Component, UNetConfig]:
        where = f"{self.folder}/{name}/config.json"
        config = as_class(self._config(name), CLASSES[name], where)
        return unet_component(config, self._tensors(name), 3, "length")

    def _projected(self, plain: UNetConfig) -> UNetConfig:
        """The decoder with its projections; what else it would read has no place in this pipeline."""
        where = f"{self.folder}/decoder/config.json"
        if plain.vector != "identity" or plain.context_source or plain.image_dim or plain.pool_heads:
            what = "the decoder does not read what the projection makes"
            fits = "class_embed_type identity, without encoder_hid_dim_type and addition_embed_type"
            raise SourceError("unsupported", what, where=f"{where}: class_embed_type", fits=fits)
        return with_text_proj(plain, self._config("text_proj"), f"{self.folder}/text_proj/config.json")

    def _usual_norm(self) -> float:
        """The norm of an embedding with the prior's statistics, rounded: the root of mean^2 + std^2, summed.

        Raises:
            WeightsError: `missing`; `no-statistics`.
        """
        where = f"{self.folder}/prior"
        found = Inventory(self._tensors("prior"), LoadReport(), where).take("codec", statistics_keys())
        check_lazy_statistics(found, where)
        squares = [float(found[name].read(True).double().square().sum()) for name in ("mean", "std")]
        return float(f"{math.sqrt(sum(squares)):.3g}")

    def _encoder(self) -> tuple[dict[str, Any], KeyMap]:
        beside = self.folder / "feature_extractor"
        stated = self._config("feature_extractor", PREPROCESSOR) if (beside / PREPROCESSOR).is_file() else None
        where = f"{self.folder}/image_encoder/config.json"
        read = clip_image_config(self._config("image_encoder"), stated, "projected", where, str(beside))
        keymap = vision_keys(read, vision_level(self._tensors("image_encoder")))
        return read.model_dump(mode="json", exclude_defaults=True) | {"projection": read.projection}, keymap

    def _scheduler(self, name: str, learned: bool | None = None) -> SchedulerParts:
        """Its parts; the number of the network's channels and the scheduler's variance must agree."""
        where = f"{self.folder}/{name}"
        config = as_class(self._config(name, "scheduler_config.json"), UNCLIP, where)
        found = read_scheduler(config, where)
        if learned is not None and learned != (found.sampler.config["variance"] == "learned"):
            what = (
                f"variance_type {config.get('variance_type')!r}, and the network has {'' if learned else 'no '}variance"
            )
            raise SourceError("unsupported", what, where=f"{where}: variance_type", fits="channels that fit it")
        return found

    def _spec(
        self,
        name: str,
        codec: PartSpec,
        denoiser: PartSpec,
        scheduler: SchedulerParts,
        conditioners: dict[str, ConditionerSpec],
        size: tuple[int, int] | None,
    ) -> PipelineSpec:
        guidance = PartSpec(type="cfg", config={"scale": GUIDANCE[name]}) if name in GUIDANCE else PartSpec(type="none")
        total = scheduler.process.config.get("steps", 1000)
        defaults = Defaults(
            sampler=scheduler.sampler,
            grid=scheduler.grid,
            guidance=guidance,
            steps=min(STEPS[name], total),
            size=size,
        )
        return PipelineSpec(
            codec=codec, denoiser=denoiser, process=scheduler.process, conditioners=conditioners, defaults=defaults
        )

    def _source(
        self, spec: PipelineSpec, pieces: Mapping[str, list[Piece]], folders: Mapping[str, Path]
    ) -> PartsSource:
        return PartsSource(str(self.folder), spec, pieces, self._tensors, folders)

    def _size(self, name: str) -> tuple[int, int]:
        size = self._config(name).get("sample_size")
        if type(size) is not int or size < 1:
            where = f"{self.folder}/{name}/config.json: sample_size"
            raise SourceError("unsupported", f"sample_size is {shown(size)}", where=where, fits="a positive integer")
        return size, size

    def _check_classes(self) -> None:
        for name, cls in CLASSES.items():
            if self._classes.get(name, cls) != cls:
                where = f"{self.folder}/{INDEX}: {name}"
                raise SourceError("unsupported", f"{name} is a {self._classes[name]}", where=where, fits=cls)

    def _config(self, component: str, name: str = "config.json") -> dict[str, Any]:
        found: dict[str, Any] = read_member_json(self.folder, f"{component}/{name}", self.folder)
        return found

    def _tensors(self, component: str) -> Mapping[str, LazyTensor]:
        if component not in self._files:
            folder = member(self.folder, component)
            self._files[component] = component_tensors(folder, self.folder, self._variants.get(component, ""))
        return self._files[component]


def _below(way: str, keymap: KeyMap) -> KeyMap:
    return {f"{way}.{name}": one for name, one in keymap.items()}
