"""An IP-Adapter's file, read for the pipeline whose cross-attentions it adds to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ldmkit_denoisers.unet import UNet

from ldmkit import (
    ConditionerSpec,
    InputError,
    LazyTensor,
    PartSpec,
    SlotPart,
    SourceError,
    WeightsError,
    shown,
)
from ldmkit.models.composed import Composed
from ldmkit.models.locate import locate
from ldmkit.models.source import AdapterSource
from ldmkit_checkpoints.inventory import Inventory
from ldmkit_checkpoints.ip_adapter.keys import (
    ATTENTION,
    adapter_keys,
    attention_number,
    cross_attentions,
    projection_of,
    refuse_others,
)
from ldmkit_checkpoints.keys import KeyMap
from ldmkit_checkpoints.transformers.vision import ignorable_vision_key, open_vision

NAME, ENCODER = "ip-adapter", "encoder"
PART, IMAGE_PART = f"adapters.{NAME}", "conditioners.image"

_PATCHES = 257
"""Tokens of CLIP's vision encoders of 224 pixels with patches of 14, where nothing else is said."""

_NUMBERED = re.compile(rf"{re.escape(ATTENTION)}(\d+)\.to_[kv]_ip\.weight")


class IPAdapterSource(AdapterSource):
    """An IP-Adapter and its image encoder; the adapter is named `ip-adapter`.

    Args:
        tensors: lazy tensors by `image_proj.<key>` and `ip_adapter.<n>.<key>`.
        pipeline: that it is for.
        options: `encoder`, the image encoder's folder; without it the inputs are its embeddings.
        origin: the file, for errors.

    Raises:
        SourceError: `other-base`, `unsupported`, `unknown-key`, `other-encoder`, `no-encoder`.
        WeightsError: `missing`, `wrong-shape`.
    """

    def __init__(
        self, tensors: Mapping[str, LazyTensor], pipeline: Composed, options: Mapping[str, Any], origin: str
    ) -> None:
        super().__init__(origin)
        shapes = {key: tensor.shape for key, tensor in tensors.items()}
        refuse_others(shapes, origin)
        self.inventory = Inventory(tensors, self.report, origin)
        config = projection_of(shapes, origin)
        self._numbers, config["layers"] = self._layers(shapes, pipeline, config["dim"])
        self._encoder = self._vision(options, config)
        config["length"] = 1 if config["projection"] == "plain" else self._length(options)
        if config["projection"] == "full":
            config["tokens"] = config["length"]
        self._config, self._regions = config, options.get("regions", 8)
        self._keys = adapter_keys(config, self._numbers, shapes)

    @property
    def adapters(self) -> Mapping[str, PartSpec]:
        return {NAME: PartSpec(type="ip-adapter", config=self._config)}

    def conditioners_of(self, adapter: str) -> Mapping[str, SlotPart]:
        named: dict[str, Any] = {"input": "ip-image"}
        if self._encoder is not None:
            image = SlotPart(self._encoder[0].model_copy(update=named), IMAGE_PART)
        else:
            own = {"dim": self._config["source"], "length": self._config["length"]}
            own["null"] = "zeros" if self._config["projection"] == "plain" else "none"
            image = SlotPart(ConditionerSpec(type="image-embedding", config=own, **named))
        if not self._regions:
            return {"image": image}
        regions = ConditionerSpec(type="picture-regions", config={"count": self._regions}, input="ip-region")
        return {"image": image, "region": SlotPart(regions)}

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        if part == IMAGE_PART and self._encoder is not None:
            _, keymap, tensors = self._encoder
            inventory = Inventory(tensors, self.report, str(self.files[ENCODER]), "encoder:")
            found = inventory.take(part, keymap)
            inventory.ignore_if(ignorable_vision_key)
            inventory.finish()
            return found
        if part != PART:
            raise SourceError("no-part", f"there is no part {part!r}", where=self.origin, fits=PART)
        return self._own

    @cached_property
    def _own(self) -> Mapping[str, LazyTensor]:
        found = self.inventory.take(PART, self._keys)
        self.inventory.ignore_if(lambda key: "the U-Net that it was trained on" if key.startswith("unet.") else None)
        self.inventory.finish()
        return found

    def _layers(
        self, shapes: Mapping[str, tuple[int, ...]], pipeline: Composed, dim: int
    ) -> tuple[list[int], list[dict[str, Any]]]:
        """The file's numbers of the network's cross-attentions, and these."""
        if not isinstance(pipeline.denoiser, UNet):
            what = f"it adds to a U-Net's cross-attentions, and the denoiser is a {type(pipeline.denoiser).__name__}"
            raise SourceError("other-base", what, where=self.origin, fits="a pipeline with a U-Net")
        unet = pipeline.denoiser.config
        there, fits = cross_attentions(unet), "a file that was made for this model"
        numbers = sorted({int(found[1]) for key in shapes if (found := _NUMBERED.fullmatch(key))})
        wanted = [attention_number(i) for i in range(len(there))]
        for number, (port, width) in zip(wanted, there, strict=True):
            for name in ("k", "v"):
                key, takes = f"{ATTENTION}{number}.to_{name}_ip.weight", (width, unet.context_dim)
                if shapes.get(key) not in (None, takes):
                    what = f"{key!r} has shape {list(shapes[key])}, this pipeline's {port!r} takes {list(takes)}"
                    raise SourceError("other-base", what, where=self.origin, fits=fits)
        if more := sorted(set(numbers) - set(wanted)):
            what = f"{ATTENTION}{more[0]} is not among this pipeline's {len(there)} cross-attentions"
            fits = f"{fits}, with {ATTENTION}1 to {ATTENTION}{wanted[-1] if wanted else 0}"
            raise SourceError("other-base", what, where=self.origin, fits=fits)
        if dim != unet.context_dim:
            what = f"its projection makes tokens {dim} wide, its attentions read {unet.context_dim}"
            raise WeightsError("wrong-shape", what, where=self.origin)
        return wanted, [{"port": port, "width": width} for port, width in there]

    def _vision(
        self, options: Mapping[str, Any], config: Mapping[str, Any]
    ) -> tuple[ConditionerSpec, KeyMap, dict[str, LazyTensor]] | None:
        given = options.get(ENCODER)
        if given is None:
            return None
        if not isinstance(given, str | Path):
            raise InputError("path-type", f"got {shown(given)}", where=ENCODER, fits="the image encoder's folder")
        path, origin = locate(given, None)
        self.files[ENCODER] = path
        layer = "projected" if config["projection"] == "plain" else "penultimate"
        spec, keymap, tensors = open_vision(path, layer)
        own = self._encoder_config(spec)
        if own.dim != config["source"]:
            what = f"{origin} gives {layer} states {own.dim} wide, and the adapter reads {config['source']}"
            others = f"the encoder that it was trained with, {_ENCODERS.get((layer, config['source']), 'another one')}"
            raise SourceError("other-encoder", what, where=self.origin, fits=others)
        return spec, keymap, tensors

    def _length(self, options: Mapping[str, Any]) -> int:
        asked = options.get("length", _PATCHES)
        if self._encoder is None:
            return asked if type(asked) is int else _PATCHES
        own = int(self._encoder_config(self._encoder[0]).length)
        if "length" in options and asked != own:
            raise InputError("not-taken", f"length is {shown(asked)}", where="length", fits=f"{own}, the encoder's")
        return own

    @staticmethod
    def _encoder_config(spec: ConditionerSpec) -> Any:
        from ldmkit_conditioners.clip_image import ClipImageConfig

        return ClipImageConfig.of(spec.config, "encoder")


_ENCODERS = {
    ("projected", 1024): "ViT-H/14", ("projected", 1280): "ViT-bigG/14", ("projected", 768): "ViT-L/14",
    ("penultimate", 1280): "ViT-H/14", ("penultimate", 1664): "ViT-bigG/14", ("penultimate", 1024): "ViT-L/14",
}  # fmt: skip
"""Published encoders by what IP-Adapters read of them."""
