"""Settings of the process that a caller may have changed, and that no result here may depend on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def usual_device() -> Iterator[None]:
    """Tensors that name no device are the CPU's inside, whatever `torch.set_default_device` or `with torch.device(...)`
    around a call say: which device a part is on is the pipeline's to know.
    """
    if torch.get_default_device().type == "cpu":
        yield
    else:
        with torch.device("cpu"):
            yield
