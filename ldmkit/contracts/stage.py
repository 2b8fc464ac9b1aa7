"""The contract of a training stage: it turns batches into losses and defines what is averaged, saved and measured.

The training loop owns optimisers, schedules, weight averages (EMA), checkpoints and processes; a stage owns its
networks and its objective. A stage has one or more turns. Each turn has its own optimiser, and the turns of a step run
in order on the same batch (a codec, then its discriminator).
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
    """One process's rows of a training step, or of one accumulation step.

    Args:
        ids: sample ids, for error messages.
        images: (B,3,H,W) in [-1,1]; None if latents are read from a cache.
        latents: (B,C,h,w), the mode of the posterior, from the cache; None if pictures are given.
        deviation: (B,C,h,w), the standard deviation of the posterior, from the cache; None for a codec without one.
        inputs: raw inputs of each row, by name.
        size: (height, width) of the pictures.
        draws: the random draws of the batch.
    """

    ids: tuple[str, ...]
    images: Tensor | None
    latents: Tensor | None
    deviation: Tensor | None
    inputs: Sequence[Mapping[str, Any]]
    size: tuple[int, int]
    draws: Draws


class Loss(NamedTuple):
    """A turn's loss on a batch.

    Args:
        total: scalar with gradient, the objective to minimise; the mean over the rows of the batch.
        terms: detached scalars by name, for logs; the name `loss` is reserved for `total`.
        parts: scalars with gradient by name, whose (weighted) sum is `total`; `ldmkit train --check` traces them.
    """

    total: Tensor
    terms: Mapping[str, Tensor]
    parts: Mapping[str, Tensor]


class StageSetup(NamedTuple):
    """What a stage is built from besides its config.

    Args:
        folder: the recipe's folder; relative paths are resolved against it.
        seed: seed of the weight initialisation.
        size: (height, width) of the training pictures.
    """

    folder: Path
    seed: int = 0
    size: tuple[int, int] | None = None


class Turn(nn.Module, ABC):
    """One optimiser's share of a step. The optimiser is given all parameters of this module that require a gradient.

    Networks that it only uses (a frozen codec, the networks of another turn) must not be registered as submodules.
    """

    @abstractmethod
    def forward(self, batch: Batch, step: int) -> Loss:
        """The loss at optimiser step `step`. In multi-process training the loop calls it through DDP."""

    def active(self, step: int) -> bool:
        """False if this turn is skipped at a step (a discriminator before its start)."""
        return True

    def groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Trained parameters grouped by component (`denoiser`, `text`, `decoder` ...)."""
        return {"all": [p for p in self.parameters() if p.requires_grad]}

    def reaches(self) -> Mapping[str, frozenset[str]]:
        """Name of each part of the loss -> names of exactly those groups that its gradient must reach."""
        return {}


class Stage(ABC):
    """What a recipe trains. `stage: NAME` selects it; its own keys are at the same level as the common ones.

    Attributes:
        turns: in the order in which they run; the first owns the networks that are averaged and saved.
        inputs: names of the raw inputs that it reads; batches contain no others.
        codec: the codec that it trains or whose latents it reads, if any.
        notes: lines for the training plan about how the stage was built.
    """

    api: ClassVar[int] = 1
    Config: ClassVar[type[Value]]
    """Its own keys in a recipe, besides the common ones (`out`, `steps`, `data`, `optimiser` ...). A key with the name
    of a common one replaces it, for example to change its bounds or default."""
    examples: ClassVar[tuple[Example, ...]] = ()
    """Small configurations for the contract kit; `inputs` are raw inputs by name, one mapping per row."""

    turns: Mapping[str, Turn]
    inputs: frozenset[str] = frozenset()
    codec: Codec | None = None
    notes: Sequence[str] = ()
    reads_images: ClassVar[bool] = True
    """Whether its turns use pictures or latents; False if they use only inputs."""
    overfit_share: ClassVar[float] = 0.5
    """`ldmkit train --check` expects the loss on a few rows to fall to this share of the first one; what starts from a
    trained model begins with a low one."""

    @classmethod
    @abstractmethod
    def build(cls, config: Any, setup: StageSetup) -> Stage:
        """A stage with initial weights, which are determined by the global seed and `setup.seed`.

        Args:
            config: a value with the keys of `Config` (the recipe itself).

        Raises:
            LdmkitError: a model to start from is missing or does not fit, or parts are incompatible.
        """

    @classmethod
    def write_example(cls, folder: Path) -> None:
        """For the contract kit: write the files that the configurations in `examples` read into an empty folder."""
        del folder

    @classmethod
    def check_saved(cls, folder: Path) -> None:
        """Check before a run that `save` may replace the contents of a folder. The default accepts any folder.

        Raises:
            InputError: `folder-taken`: the folder contains files that were not written by a run of this stage.
        """
        del folder

    def parsed(self, inputs: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        """One sample's raw inputs (by the model's names), parsed for its networks.

        Raises:
            InputError: an input is invalid.
        """
        return inputs

    @property
    @abstractmethod
    def averaged(self) -> nn.Module:
        """The module whose weights are averaged (EMA); its state-dict keys name the averages in checkpoints."""

    @property
    def frozen(self) -> Mapping[str, nn.Module]:
        """Networks that are used but must stay bit-identical, by name."""
        return {}

    @property
    def trained_codec(self) -> Codec | None:
        """The codec if it is being trained, in which case previews are reconstructions; else None."""
        return self.codec if self.codec is not None and self.codec is self.averaged else None

    @property
    def frozen_codec(self) -> Codec | None:
        """The codec if it is frozen, in which case its latents can be cached; else None."""
        return self.codec if any(module is self.codec for module in self.frozen.values()) else None

    def to(self, device: Any) -> None:
        """Move what no turn contains (frozen networks) to a device."""
        for module in self.frozen.values():
            module.to(device)

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the current weights as a model that users load (`ldmkit.load`, `ldmkit.load_codec`).

        The loop swaps in the averaged weights before the call and restores the trained ones afterwards. The results of
        an earlier run in the folder are replaced.
        """

    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """Metrics on held-out batches by name (`psnr`, `loss` ...), with the current weights."""
        return {}

    def finish(self, batches: Iterable[Batch]) -> None:  # noqa: B027  most stages measure nothing
        """Called with training batches after the last step, before the final save (to measure latent statistics)."""
