"""Maps of labels in the colours that segmentation ControlNets were trained with."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from ldmkit import Example, Extractor, InputError, LabelMap, from_levels
from ldmkit_extractors.palettes import ADE20K

_EXAMPLES = (np.array([[0, 1, 2], [3, 2, 2]]), np.array([[2, 2, 149], [3, 2, 1]]))


class Segmentation(Extractor):
    """A map of labels in the 150 colours of ADE20K (Zhou et al. 2017), for `control_*_seg`.

    Takes a map: a palette or grey picture whose indices or values are the labels.

    Args:
        first: the label of the first class, `wall`. With 1, as in ADE20K's own files, 0 is no class, and black.
        unlabelled: a label that is no class either (255 in many data sets), and black.
    """

    Input: ClassVar[Any] = LabelMap
    api: ClassVar[int] = 1
    examples: ClassVar[tuple[Example, ...]] = (Example(inputs=_EXAMPLES),)

    first: Literal[0, 1] = 0
    unlabelled: int | None = Field(default=None, ge=0, le=2**31)

    def extract(self, value: Tensor) -> Tensor:
        labels = value.numpy()
        none = (labels < self.first) | (labels == (-1 if self.unlabelled is None else self.unlabelled))
        classes = np.where(none, 0, labels - self.first)
        if int(classes.max()) >= len(ADE20K):
            what = f"label {int(classes.max()) + self.first} has no colour"
            fits = f"labels from {self.first} to {len(ADE20K) - 1 + self.first}, or `unlabelled`"
            raise InputError("label-range", what, where="segmentation", fits=fits)
        return from_levels(np.where(none[..., None], np.uint8(0), np.array(ADE20K, np.uint8)[classes]))
