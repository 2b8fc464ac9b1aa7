"""Hints of the pictures that training sees, after they were cropped and mirrored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from ldmkit import Extractor, HintPicture, PartSpec, Picture, SpecError
from ldmkit.run.extracting import extractor_of, hint_of

_HINT: TypeAdapter[Any] = TypeAdapter(HintPicture)


def extractors_of(extract: Mapping[str, PartSpec]) -> dict[str, Extractor]:
    """Name of an input -> the extractor that makes it.

    Raises:
        PluginError, SpecError: no such extractor, or options that it does not have.
        SpecError: `extracts-no-picture`: it reads something else than a picture.
    """
    found = {}
    for name, spec in extract.items():
        extractor = extractor_of(spec)
        if extractor.Input is not Picture:
            what = f"the extractor {spec.type!r} reads no picture"
            fits = "an extractor of pictures; hints of other things are written by `ldmkit extract` and are data"
            raise SpecError("extracts-no-picture", what, where=f"data.extract.{name}", fits=fits)
        found[name] = extractor
    return found


def extracted(extractors: Mapping[str, Extractor], image: np.ndarray) -> dict[str, str]:
    """The hints of a picture (H,W,3) uint8 by the inputs' names, as data URIs that lose nothing.

    Raises:
        InputError: the picture does not fit an extractor.
    """
    made = {}
    for name, extractor in extractors.items():
        picture = extractor.parse(Image.fromarray(image), f"data.extract.{name}")
        made[name] = _HINT.dump_python(hint_of(extractor, picture), mode="json")
    return made
