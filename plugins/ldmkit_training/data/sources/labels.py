"""Label maps from files: which pixel value means which class."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from ldmkit import InputError, Value, read_label_map

IGNORED, IGNORED_WIDE = 255, 65535
"""What ignored pixels become: in maps of at most 255 classes, and in others."""


class LabelRule(Value):
    """How the values in map files become labels.

    Args:
        classes: labels are 0 ... classes - 1, as they stand in the file; null: as they stand, whatever they are.
        values: instead of that, the value of each class in order: the label is the position in this list.
        ignore: the value of pixels that belong to no class; they become 255 (65535 beside more than 255 classes).
    """

    classes: int | None = Field(default=None, ge=1, le=65535)
    values: tuple[int, ...] | None = Field(default=None, min_length=1, max_length=65535)
    ignore: int | None = Field(default=None, ge=0, le=65535)

    @model_validator(mode="after")
    def _consistent(self) -> LabelRule:
        if self.classes is not None and self.values is not None:
            raise ValueError("classes and values say the same in two ways: give one")
        known = self._known
        if len(set(known)) < len(known):
            raise ValueError("values has a value twice")
        if self.ignore in known:
            raise ValueError(f"ignore {self.ignore} is a class")
        return self

    @property
    def _known(self) -> tuple[int, ...]:
        return self.values or tuple(range(self.classes or 0))

    @property
    def wide(self) -> bool:
        """Whether labels need 16 bits, those of one map or not; without known classes each map tells by itself."""
        return len(self._known) > IGNORED

    @cached_property
    def table(self) -> np.ndarray:
        """Value -> label, -1 where a value means nothing."""
        known = np.asarray(self._known, dtype=np.int64)
        table = np.full(65536, -1, dtype=np.int64)
        table[known] = np.arange(len(known))
        if not len(known):
            table[:] = np.arange(65536)
        if self.ignore is not None:
            table[self.ignore] = IGNORED_WIDE if self.wide else IGNORED
        return table


def read_labels(source: Path | bytes, where: str, rule: LabelRule) -> np.ndarray:
    """A palette or grey file as labels (H,W), uint8 where they fit.

    Raises:
        InputError: `bad-file`: no label map, or a value that is no class.
    """
    try:
        raw = read_label_map(source, where).numpy()
    except InputError as problem:
        raise InputError("bad-file", problem.what, where=where, fits=problem.fits) from None
    labels = rule.table[raw] if int(raw.max()) <= 65535 else np.full_like(raw, -1)
    wrong = raw[labels < 0]
    if len(wrong):
        what = f"value {int(wrong[0])} is no class ({len(wrong)} pixels have values that are none)"
        ignored = f"; or ignore: {int(wrong[0])}" if rule.ignore is None else ""
        fits = f"the values {list(rule.values)}" if rule.values else f"0 to {(rule.classes or 65536) - 1}"
        raise InputError("bad-file", what, where=where, fits=fits + ignored)
    return labels.astype(np.uint16 if rule.wide or int(labels.max()) > 255 else np.uint8)
