"""Each picture as an input beside itself: what an enlarging stage is trained on."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from ldmkit import Data, Dataset, Example, PartSpec, Sample, SpecError, build_value
from ldmkit.contracts.wrapping import Wrapping
from ldmkit_training.data.section import open_part


class ItselfDataset(Wrapping):
    """A source whose samples have their own picture as one more input."""

    def __init__(self, dataset: Dataset, name: str, field: str | None) -> None:
        super().__init__(dataset)
        if name in dataset.geometry:
            raise SpecError("input-twice", f"the source has an input {name!r} already", where="itself.input")
        self.name, self.field = name, field
        self.geometry = {**dataset.geometry, name: "none"}

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        picture = png_uri(sample.image)
        value = picture if self.field is None else {self.field: picture}
        return Sample(sample.id, sample.image, {**sample.inputs, self.name: value})

    def inputs(self, index: int) -> Mapping[str, Any]:
        return self[index].inputs

    def known(self, index: int) -> Mapping[str, Any] | None:
        return self.dataset.known(index)

    @property
    def fingerprint(self) -> str:
        return f"{self.dataset.fingerprint}\nitself {self.name} {self.field}"


def png_uri(image: np.ndarray) -> str:
    """A picture (H,W,3) uint8 as a data URI, which loses nothing."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, format="PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


class ItselfData(Data):
    """Part `itself`: the samples of another source, each with its own picture as an input too.

    A model that reads the input as a picture gets it at the size that it asks for: with `fit: resize` and the crops,
    the picture is made smaller as pictures are (bicubic, with antialiasing).

    Args:
        source: part of kind `data`.
        input: name of the new input.
        field: of the input that is the picture, `image` for `noised-picture`; None: the input is the picture.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example({"source": {"type": "classes", "config": {"folder": "pictures", "classes": ["day", "night"]}}}),
    )

    source: PartSpec
    input: str = Field(default="low", min_length=1)
    field: str | None = "image"

    def open(self, folder: Path) -> ItselfDataset:
        return ItselfDataset(
            open_part(self.source, folder, f"itself.source ({self.source.type})"), self.input, self.field
        )

    def write_example(self, folder: Path) -> None:
        source: Data = build_value("data", self.source, "itself")
        source.write_example(folder)
