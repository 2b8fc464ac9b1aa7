"""Hint pictures: pictures, of which some pixels may be marked as unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ldmkit.files.levels import from_levels, to_levels
from ldmkit.files.picture_files import array_from_uri, file_bytes, is_npy, npy_array
from ldmkit.files.pictures import FILES, data_uri, kind_of_file, read_picture

MASKED = -3.0
"""The value of an unknown pixel in all three channels of a hint in [-1, 1]: -1 in the [0, 1] that ControlNets read."""


def read_hint(source: object, where: str | None = None) -> Tensor:
    """A hint as (3, H, W) float32 on the CPU: what `read_picture` reads, or a tensor, or an .npy file of one, of which
    pixels are `MASKED`.

    Raises:
        InputError: as `read_picture`.
    """
    tensor = _stored(source, where)
    if tensor is None or tensor.ndim != 3 or not tensor.is_floating_point() or tensor.is_sparse:
        return read_picture(source if tensor is None else tensor, where)
    unknown = (tensor == MASKED).all(dim=0)
    if not bool(unknown.any()):
        return read_picture(tensor, where)
    known = read_picture(torch.where(unknown, -1.0, tensor.detach()), where)
    return torch.where(unknown.cpu(), MASKED, known)


def _stored(source: object, where: str | None) -> Tensor | None:
    if isinstance(source, Tensor):
        return source
    found = array_from_uri(source, where)
    if found is None and isinstance(source, (str, Path)) and str(source).endswith(".npy"):
        data, where = file_bytes(source, where)
        found = npy_array(data, where) if is_npy(data) else None
    return None if found is None else torch.from_numpy(np.ascontiguousarray(found))


def is_levels(hint: Tensor) -> bool:
    """Whether all known pixels of a hint are 8-bit levels, as a PNG holds them."""
    known = torch.where((hint == MASKED).all(dim=0), -1.0, hint)
    return torch.equal(from_levels(to_levels(known)), known)


HintPicture: TypeAlias = Annotated[Tensor, *kind_of_file(read_hint, data_uri, "Picture", FILES)]
"""Pydantic type of a hint, read by `read_hint`; serialised to JSON as a lossless data URI."""
