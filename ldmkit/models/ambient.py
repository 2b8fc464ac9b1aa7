"""Protection from global torch settings that a caller may have changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def usual_device() -> Iterator[None]:
    """Make the CPU the default device inside the block, regardless of `torch.set_default_device` or an enclosing
    `with torch.device(...)`; the pipeline decides on which device a part is.
    """
    if torch.get_default_device().type == "cpu":
        yield
    else:
        with torch.device("cpu"):
            yield
