"""The contracts of perceptual distances and of classifiers of noisy latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ldmkit.contracts.part import Part
from ldmkit.contracts.process import Process
from ldmkit.errors import InputError, suggest


class Perceptual(Part, ABC):
    """A perceptual distance between pictures, for training codecs; frozen, differentiable in `images`."""

    def load_files(self, files: Sequence[Path]) -> None:
        """Load the weights from local files, in place.

        Raises:
            InputError: `perceptual-files`: files given for a distance that reads none, or missing for one that does.
            SourceError, WeightsError: a file cannot be read, or its tensors do not fit.
        """
        if files:
            what = f"{type(self).__name__} reads no files, got {', '.join(map(str, files))}"
            raise InputError("perceptual-files", what, where="perceptual.files", fits="none")

    @abstractmethod
    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        """(B,) float32 distances >= 0 between pictures (B,3,H,W) in [-1,1]; 0 for equal pictures."""


class Classifier(Part, ABC):
    """p(class | noisy latents), for guidance. It is conditioned on sigma, so that it can guide any process."""

    channels: int
    """Latent channels."""
    classes: int
    names: tuple[str, ...] = ()
    """Class names, in order; empty if the classes are only numbered."""
    process: Process | None = None
    """The process that provides the noise levels of training; None if it cannot be trained here."""

    @abstractmethod
    def forward(self, x: Tensor, sigma: Sequence[float]) -> Tensor:
        """Logits (B,classes) for x (B,channels,h,w) = x0 + sigma * noise, one sigma per row."""

    def number(self, label: int | str, where: str) -> int:
        """The index of a class, given by index or by name.

        Raises:
            InputError: `unknown-class`.
        """
        if isinstance(label, str) and label in self.names:
            return self.names.index(label)
        if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < self.classes:
            return label
        fits = suggest(str(label), self.names) if self.names else f"0 to {self.classes - 1}"
        raise InputError("unknown-class", f"there is no class {label!r}", where=where, fits=fits)
