"""The contracts of networks that judge: distances between pictures, and classifiers of noisy latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ldmkit.contracts.part import Part
from ldmkit.contracts.process import Process
from ldmkit.errors import InputError, suggest


class Perceptual(Part, ABC):
    """A distance between pictures as people see them, for training codecs; frozen, differentiable in `images`."""

    def load_files(self, files: Sequence[Path]) -> None:
        """Read the weights from local files, in place.

        Raises:
            InputError: `perceptual-files`: files for a distance without any, or none for one that needs them.
            SourceError, WeightsError: files that cannot be read or do not fit.
        """
        if files:
            what = f"{type(self).__name__} reads no files, got {', '.join(map(str, files))}"
            raise InputError("perceptual-files", what, where="perceptual.files", fits="none")

    @abstractmethod
    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        """(B,) float32 distances >= 0 of pictures (B,3,H,W) in [-1,1]; 0 for equal ones."""


class Classifier(Part, ABC):
    """p(class | noisy latents), for guidance. It knows noise by its level, so that any process can be guided by it."""

    channels: int
    """Of the latents."""
    classes: int
    names: tuple[str, ...] = ()
    """Of the classes, in order; empty where they have numbers only."""
    process: Process | None = None
    """Whose noise levels it is trained on; None: it cannot be trained here."""

    @abstractmethod
    def forward(self, x: Tensor, sigma: Sequence[float]) -> Tensor:
        """Logits (B,classes) of x (B,channels,h,w) = x0 + sigma * noise, one sigma a row."""

    def number(self, label: int | str, where: str) -> int:
        """The number of a class, which is given by it or by name.

        Raises:
            InputError: `unknown-class`.
        """
        if isinstance(label, str) and label in self.names:
            return self.names.index(label)
        if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < self.classes:
            return label
        fits = suggest(str(label), self.names) if self.names else f"0 to {self.classes - 1}"
        raise InputError("unknown-class", f"there is no class {label!r}", where=where, fits=fits)
