"""The contract of a training stage: batches in, losses out, and what to average, save and measure.

The training loop owns optimisers, schedules, running averages, checkpoints and processes; a stage owns its networks and
its objective. A stage has one turn or more; each turn has an optimiser of its own, and the turns of a step run in order
on the same batch (a codec, then its discriminator).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from ldmkit.contracts.codec import Codec
from ldmkit.contracts.draws import Draws
from ldmkit.contracts.example import Example
from ldmkit.contracts.value import Value


@dataclass(frozen=True)
class Batch:
    """One process's rows of a training step (or of one accumulated part of it).

    Args:
        ids: of the samples, for errors.
        images: (B,3,H,W) in [-1,1]; None where latents are read from a cache.
        latents: (B,C,h,w), the mode of the posterior, from the cache; None where pictures are given.
        deviation: (B,C,h,w), the posterior's standard deviation, from the cache; None for a codec without one.
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
        terms: scalars by name, detached, for logs; `loss` is the loop's own name for `total`.
        parts: scalars with gradient by name, whose (weighted) sum is `total`: what `ldmkit train --check` follows.
    """

    total: Tensor
    terms: Mapping[str, Tensor]
    parts: Mapping[str, Tensor]


class StageSetup(NamedTuple):
    """What a stage is built from beside its own keys.

    Args:
        folder: of the recipe; relative paths start from it.
        seed: of the first weights.
        size: (height, width) of the training pictures.
    """

    folder: Path
    seed: int = 0
    size: tuple[int, int] | None = None


class Turn(nn.Module, ABC):
    """One optimiser's share of a step. Its parameters that require a gradient are what the optimiser gets.

    Networks that it only reads (a frozen codec, the other turn's) must not be registered as submodules.
    """

    @abstractmethod
    def forward(self, batch: Batch, step: int) -> Loss:
        """The loss at optimiser step `step`. The loop may have wrapped this module for several processes."""

    def active(self, step: int) -> bool:
        """False where this turn has nothing to do at a step (a discriminator before its start)."""
        return True

    def groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Trained parameters by the name of what they belong to (`denoiser`, `text`, `decoder` ...)."""
        return {"all": [p for p in self.parameters() if p.requires_grad]}

    def reaches(self) -> Mapping[str, frozenset[str]]:
        """Name of each part of the loss -> names of the groups that its gradient must reach, and no others."""
        return {}


class Stage(ABC):
    """What a recipe trains: `stage: NAME` names it, and its own keys stand beside those that all recipes share.

    Attributes:
        turns: in the order in which they run; the first is the one whose networks are averaged and saved.
        inputs: names of the raw inputs that it reads; batches hold no others.
        codec: the one that it trains, or whose latents it reads; None: it has none.
        notes: a line for each thing that a plan of the run should say of how the stage was built.
    """

    api: ClassVar[int] = 1
    Config: ClassVar[type[Value]]
    """Its own keys in a recipe, beside the common ones (`out`, `steps`, `data`, `optimiser` ...). A key that is called
    like a common one takes its place: other bounds, another default."""
    examples: ClassVar[tuple[Example, ...]] = ()
    """Small configurations for the contract kit; `inputs` are raw inputs by name, one mapping a row."""

    turns: Mapping[str, Turn]
    inputs: frozenset[str] = frozenset()
    codec: Codec | None = None
    notes: Sequence[str] = ()
    reads_images: ClassVar[bool] = True
    """Whether its turns look at pictures or latents at all; False where they read inputs alone."""

    @classmethod
    @abstractmethod
    def build(cls, config: Any, setup: StageSetup) -> Stage:
        """A stage with its first weights, which are the same for the same global seed and `setup.seed`.

        Args:
            config: a value with the keys of `Config` (the recipe itself).

        Raises:
            LdmkitError: a model to start from that is missing or does not fit; parts that do not go together.
        """

    @classmethod
    def write_example(cls, folder: Path) -> None:
        """Write the files that the examples' configurations read into an empty folder, for the contract kit."""
        del folder

    @classmethod
    def check_saved(cls, folder: Path) -> None:
        """Whether `save` may replace what stands in a folder, asked before a run: by default it may.

        Raises:
            InputError: `folder-taken`: it holds what no run of this stage wrote.
        """
        del folder

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

    @property
    def trained_codec(self) -> Codec | None:
        """The codec, where it is what is trained: previews are reconstructions then."""
        return self.codec if self.codec is not None and self.codec is self.averaged else None

    @property
    def frozen_codec(self) -> Codec | None:
        """The codec, where it is only read: its latents can be cached."""
        return self.codec if any(module is self.codec for module in self.frozen.values()) else None

    def to(self, device: Any) -> None:
        """Move what no turn holds (frozen networks) to a device."""
        for module in self.frozen.values():
            module.to(device)

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what users load (`ldmkit.load`, `ldmkit.load_codec`) from the weights as they are now.

        The loop puts the average in place before, and the trained weights back after. The folder may hold what an
        earlier run saved, which is replaced.
        """

    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """Figures on held-out batches by name (`psnr`, `loss` ...), with the weights as they are now."""
        return {}

    def finish(self, batches: Iterable[Batch]) -> None:  # noqa: B027  most stages measure nothing
        """Called with training batches after the last step, before the last save (measuring latent statistics)."""
