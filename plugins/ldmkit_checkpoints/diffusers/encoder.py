"""The encoder of pictures of a diffusers pipeline, for folders whose condition is the embedding of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ldmkit_conditioners.clip_image import ClipImageConfig

from ldmkit import LazyTensor
from ldmkit_checkpoints.component_files import component_tensors, member, read_member_json
from ldmkit_checkpoints.diffusers.folder import DiffusersFolder
from ldmkit_checkpoints.inventory import Inventory
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
    """The components of an encoder: the model, and how its pictures are prepared.

    Args:
        root: the folder with both; None: the pipeline's own.
    """

    model: str = "image_encoder"
    pictures: str = "image_processor"
    root: Path | None = None


class EncoderFolder(DiffusersFolder):
    """A folder whose conditioner `image` has an encoder's weights beside those of its own component, if any."""

    encoder: EncoderParts | None = None

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        """As for all folders; the encoder of pictures is read from its own component."""
        found = super().tensors(part)
        if part != IMAGE or self.encoder is None:
            return found
        keys = vision_keys(self._encoder_config(), vision_level(self._encoder_files.tensors))
        found = {**found, **self._encoder_files.take(part, keys)}
        self._encoder_files.ignore_if(ignorable_vision_key)
        self._encoder_files.finish()
        return found

    @cached_property
    def _encoder_files(self) -> Inventory:
        assert self.encoder is not None
        name, root = self.encoder.model, self.encoder.root
        if root is None:
            return self._inventory(name)
        tensors = component_tensors(member(root, name), root)
        return Inventory(tensors, self.report, str(root / name), f"{name}:")

    def _weighted(self) -> list[str]:
        own = self.encoder is not None and self.encoder.root is None
        return [*super()._weighted(), *((self.encoder.model,) if own and self.encoder is not None else ())]

    def _encoder_config(self) -> ClipImageConfig:
        assert self.encoder is not None
        root, stated = self.encoder.root or self.folder, None
        name, pictures = f"{self.encoder.model}/{CONFIG}", f"{self.encoder.pictures}/{PREPROCESSOR}"
        if member(root, pictures).is_file():
            stated = read_member_json(root, pictures)
        data = read_member_json(root, name)
        return clip_image_config(data, stated, "projected", f"{root}/{name}", f"{root}/{pictures}")

    def _encoder_fields(self) -> dict[str, Any]:
        """What a spec says of the encoder."""
        return self._encoder_config().model_dump(mode="json", exclude_defaults=True)
