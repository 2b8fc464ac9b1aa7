"""The encoder of pictures of a diffusers pipeline, for folders whose condition is the embedding of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ldmkit_conditioners.clip_image import ClipImageConfig

from ldmkit import LazyTensor
from ldmkit_checkpoints.diffusers.folder import DiffusersFolder
from ldmkit_checkpoints.transformers.vision import (
    CONFIG,
    PREPROCESSOR,
    clip_image_config,
    ignorable_vision_key,
    vision_keys,
    vision_level,
)

IMAGE = "conditioners.image"
"""The part that reads the picture."""


class EncoderParts(NamedTuple):
    """The components of an encoder: the model, and how its pictures are prepared."""

    model: str
    pictures: str


class EncoderFolder(DiffusersFolder):
    """A folder whose conditioner `image` has an encoder's weights beside those of its own component, if any."""

    encoder: EncoderParts | None = None

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        """As for all folders; the encoder of pictures is read from its own component."""
        found = super().tensors(part)
        if part != IMAGE or self.encoder is None:
            return found
        inventory = self._inventory(self.encoder.model)
        keys = vision_keys(self._encoder_config(), vision_level(inventory.tensors))
        found = {**found, **inventory.take(part, keys)}
        inventory.ignore_if(ignorable_vision_key)
        inventory.finish()
        return found

    def _weighted(self) -> list[str]:
        return [*super()._weighted(), *(() if self.encoder is None else (self.encoder.model,))]

    def _encoder_config(self) -> ClipImageConfig:
        assert self.encoder is not None
        model, pictures = self.encoder
        told, stated = self._folder(pictures), None
        if told is not None and (told / PREPROCESSOR).is_file():
            stated = self._config(pictures, PREPROCESSOR)
        where = f"{self.folder}/{model}/{CONFIG}"
        return clip_image_config(self._config(model), stated, "projected", where, f"{self.folder}/{pictures}")

    def _encoder_fields(self) -> dict[str, Any]:
        """What a spec says of the encoder."""
        read = self._encoder_config()
        return read.model_dump(mode="json", exclude_defaults=True)
