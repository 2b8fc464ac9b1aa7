"""What all parts that own weights have in common."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ldmkit.contracts.example import Example
from ldmkit.contracts.value import Value


class Part(nn.Module):
    """A module with a frozen config. Building one on the meta device must work and read no file."""

    Config: ClassVar[type[Value]] = Value
    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    """Small configurations, with which the contract kit checks the class; () where none can be built without files."""
    api: ClassVar[int]
    """The version of its kind's contract (`kinds.API`) that a class was written against; 1 where none says."""

    def __init__(self, config: Any = None):
        super().__init__()
        self.config = self.Config.of({} if config is None else config, f"{type(self).__name__} config")

    def load_assets(self, folder: Path) -> None:
        """Read what is not a tensor (vocabularies ...) from the part's folder of a saved pipeline."""

    def save_assets(self, folder: Path) -> None:
        """Write what `load_assets` reads; the folder exists."""

    def held_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The floating dtype that its tensors are held in where `dtype` is asked for, when loading or by `to`.

        A part that overflows in a narrow dtype answers with a wider one; what it is fed has the dtype it holds."""
        return dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def held(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            if not found.is_floating_point() or (wanted := self.held_dtype(found.dtype)) == found.dtype:
                return found
            return tensor.to(found.device, wanted)  # from what it was: by way of `found` it would be rounded

        applied: Self = super()._apply(held, recurse)  # type: ignore[no-untyped-call]
        return applied

    @property
    def device(self) -> torch.device:
        """Device of the first parameter or buffer; the CPU for a part without any."""
        tensor = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the first floating parameter or buffer; float32 for a part without any."""
        floats = (t.dtype for t in chain(self.parameters(), self.buffers()) if t.is_floating_point())
        return next(floats, torch.float32)
