"""What the engine knows of a stage: batches in, losses out, and what to average, save and measure.

The engine owns the loop, optimisers, schedules, averages, checkpoints and processes; a stage owns its networks and its
objective. A stage has one or more turns; each turn has its own optimiser, and the turns of a step run in order on the
same batch (a codec, then its discriminator).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ldmkit_training.loop.draws import Draws


@dataclass(frozen=True)
class Batch:
    """One process's rows of a step (or of one accumulated part of it).

    Args:
        ids: of the samples, for errors.
        images: (B,3,H,W) in [-1,1]; None where latents were cached.
        latents: (B,C,h,w), the posterior's mode from the cache; None where pictures are given.
        deviation: (B,C,h,w), the cached posterior's standard deviation; None for a codec without one.
        inputs: raw inputs of each row, by name.
        size: (height, width) of the pictures.
        draws: the batch's randomness.
    """

    ids: tuple[str, ...]
    images: Tensor | None
    latents: Tensor | None
    deviation: Tensor | None
    inputs: Sequence[Mapping[str, Any]]
    size: tuple[int, int]
    draws: Draws


class Loss(NamedTuple):
    """A turn's loss of a batch.

    Args:
        total: scalar with gradient: what is minimised; the mean over the batch's rows.
        terms: scalars by name, detached, for logs; `loss` is the engine's own name for `total`.
        parts: scalars with gradient by name, whose (weighted) sum is `total`: what the self-check follows.
    """

    total: Tensor
    terms: Mapping[str, Tensor]
    parts: Mapping[str, Tensor]


class Turn(nn.Module, ABC):
    """One optimiser's share of a step. Its parameters that require a gradient are what the optimiser gets.

    Networks that it only reads (a frozen codec, the other turn's) must not be registered as submodules.
    """

    @abstractmethod
    def forward(self, batch: Batch, step: int) -> Loss:
        """The loss at optimiser step `step`. The engine may have wrapped this module for several processes."""

    def active(self, step: int) -> bool:
        """False where this turn has nothing to do at a step (a discriminator before its start)."""
        return True

    def groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Trained parameters by the name of what they belong to (`denoiser`, `text`, `decoder` ...)."""
        return {"all": [p for p in self.parameters() if p.requires_grad]}

    def reaches(self) -> Mapping[str, frozenset[str]]:
        """Name of each part of the loss -> names of the groups that its gradient must reach, and no other ones."""
        return {}


class Stage(ABC):
    """A stage of training, built from a recipe."""

    turns: Mapping[str, Turn]
    """In the order in which they run; the first is the one whose networks are averaged and saved."""

    inputs: frozenset[str] = frozenset()
    """Names of the raw inputs that it reads; batches hold no others."""

    def parsed(self, inputs: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        """One sample's raw inputs (by the model's names) as its networks take them.

        Raises:
            InputError: they do not fit.
        """
        return inputs

    @property
    @abstractmethod
    def averaged(self) -> nn.Module:
        """The module whose running average is kept; its state-dict keys name the average's tensors in checkpoints."""

    @property
    def frozen(self) -> Mapping[str, nn.Module]:
        """Networks that are read and must stay bit for bit what they are, by name."""
        return {}

    def to(self, device: Any) -> None:
        """Move what no turn holds (frozen networks) to a device."""
        for module in self.frozen.values():
            module.to(device)

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what users load (`ldmkit.load`, `ldmkit.load_codec`) from the weights as they are now.

        The engine puts the average in place before, and the trained weights back after.
        """

    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """Figures on held-out batches by name (`psnr`, `loss` ...), with the weights as they are now."""
        return {}

    def finish(self, batches: Iterable[Batch]) -> None:  # noqa: B027  most stages measure nothing
        """Called with training batches after the last step, before the last save (measuring latent statistics)."""
