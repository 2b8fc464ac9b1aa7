"""The base class of all parts that own weights."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from ldmkit.contracts.example import Example
from ldmkit.contracts.value import Value
from ldmkit.errors import CompositionError


class Placed(Protocol):
    """Where a placed part computes, and in what, wherever its weights are just now (`Pipeline.placed`)."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...


class Part(nn.Module):
    """A module with a frozen config. It must be possible to build it on the meta device without reading files."""

    Config: ClassVar[type[Value]] = Value
    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    """Small configurations for the contract kit; () if the class cannot be built without files."""
    api: ClassVar[int]
    """Version of the contract (`kinds.API`) that the class was written against; 1 if not set."""
    placed: Placed | None = None
    """Set by `Pipeline.placed`, on copies of a pipeline's parts; None: the weights are always there."""

    kept_in_eval: frozenset[str] = frozenset()
    """Submodules that `train()` leaves in eval mode, by name ("": all of it). Training sets it to those that the
    author put there in `__init__`, as one does with a tower that is frozen."""

    def __init__(self, config: Any = None):
        super().__init__()
        self.config = self.Config.of({} if config is None else config, f"{type(self).__name__} config")

    def load_assets(self, folder: Path) -> None:
        """Read data that are not tensors (vocabularies ...) from the part's folder in a saved pipeline."""

    def save_assets(self, folder: Path) -> None:
        """Write what `load_assets` reads into an existing folder."""

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for `kept_in_eval`."""
        super().train(mode)
        for name in self.kept_in_eval if mode else ():
            self.get_submodule(name).eval()
        return self

    def held_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype in which its floating-point tensors are stored if `dtype` is requested, by loading or by `to`.

        A part that overflows in a narrow dtype returns a wider one; its inputs are then converted to that dtype."""
        return dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if self.placed is not None:
            what = f"the weights of this {type(self).__name__} are placed, and only its pipeline knows where they are"
            raise CompositionError("placed", what, fits="pipeline.to(device), or pipeline.placed(...)")

        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            if not found.is_floating_point() or (wanted := self.held_dtype(found.dtype)) == found.dtype:
                return found
            return tensor.to(found.device, wanted)  # from the original, because `found` has been rounded

        applied: Self = super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
        return applied

    @property
    def device(self) -> torch.device:
        """Device of the first parameter or buffer; the CPU if there is none."""
        if self.placed is not None:
            return self.placed.device
        tensor = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the first floating-point parameter or buffer; float32 if there is none."""
        if self.placed is not None:
            return self.placed.dtype
        floats = (t.dtype for t in chain(self.parameters(), self.buffers()) if t.is_floating_point())
        return next(floats, torch.float32)
