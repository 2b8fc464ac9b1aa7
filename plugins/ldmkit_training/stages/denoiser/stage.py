"""The training stage of a denoiser, with its conditioners and adapters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ldmkit import Batch, CompositionError, Denoiser, Draws, Example, Signal, StageSetup
from ldmkit.run.loss import prediction_errors
from ldmkit_training.stages.denoiser.config import DenoiserConfig
from ldmkit_training.stages.denoiser.model import compose_model
from ldmkit_training.stages.denoiser.model_section import ModelSection
from ldmkit_training.stages.denoiser.objective import DenoiserTurn
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from ldmkit_training.stages.denoiser.times import UniformTimes
from ldmkit_training.stages.pipeline import PipelineStage

_UNET = {"channels": 3, "widths": [8, 16], "blocks": 1, "norm_groups": 4, "heads": 2}
_UNET |= {"attention": ["none", "cross"], "context_dim": 8}
QUARTERS = 4
MAX_RECOMPILES = 256


class DenoiserStage(PipelineStage):
    """Trains a denoiser, and those conditioners and adapters that are not frozen.

    Args:
        model: what to build; its paths start from `folder`.
        objective: what to minimise.
        folder: the recipe's.
        seed: of the first weights.
        size: (height, width) of the pictures; None: not known.
        gradient_checkpointing: recompute every block of the denoiser in the backward pass instead of keeping it.
        compile: torch.compile the denoiser's repeated blocks, one by one.

    Attributes:
        notes: a line for each part: new, or from where.

    Raises:
        CompositionError: parts that do not fit; `no-checkpointing`; an unknown name under `objective.dropout`.
        SourceError, WeightsError, SpecError, PluginError: see `compose_model`.
    """

    api: ClassVar[int] = 1
    Config = DenoiserConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            {
                "model": {
                    "codec": {"type": "identity"},
                    "denoiser": {"type": "unet", "config": _UNET},
                    "process": {"type": "flow"},
                    "conditioners": {"label": {"type": "label", "config": {"n_classes": 4, "dim": 8, "null_class": 3}}},
                },
                "objective": {"dropout": {"rates": {"label": 0.5}}},
            },
            ({"label": 0}, {"label": 2}, {"label": 1}),
        ),
    )

    @classmethod
    def build(cls, config: DenoiserConfig, setup: StageSetup) -> Self:
        """See `ldmkit.Stage`."""
        return cls(
            config.model, config.objective, setup.folder,
            seed=setup.seed, size=setup.size, gradient_checkpointing=config.gradient_checkpointing,
            compile=config.compile,
        )  # fmt: skip

    def __init__(
        self,
        model: ModelSection,
        objective: DenoiserObjective,
        folder: Path,
        *,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
    ) -> None:
        composed = compose_model(model, folder, seed, size)
        self.read(composed.pipeline)
        self.objective, self.notes = objective, composed.notes
        self.turn = DenoiserTurn(self.pipeline, objective, composed.trained)
        self.denoising = self.turn
        self.turns = {"denoiser": self.turn}
        wiring = self.pipeline.wiring
        self._frozen: dict[str, nn.Module] = {"codec": self.pipeline.codec}
        parts = {"denoiser": self.pipeline.denoiser, **self.pipeline.conditioners, **self.pipeline.adapters}
        for name, part in parts.items():
            if name not in composed.trained and not (name in wiring and wiring[name].shares is not None):
                self._frozen[name] = part
        if gradient_checkpointing:
            _enable_checkpointing(self.pipeline.denoiser)
        if compile:
            _compile_blocks(self.pipeline.denoiser)

    @property
    def averaged(self) -> nn.Module:
        return self.turn.trained

    @property
    def frozen(self) -> Mapping[str, nn.Module]:
        return self._frozen

    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """The plain error (every noise level alike, nothing dropped) with noise that is the same at every call.

        Returns:
            `loss`, and `loss_q1` ... `loss_q4`: quarters of the process's own distribution, low noise first.
        """
        sums, counts = torch.zeros(QUARTERS, dtype=torch.float64), torch.zeros(QUARTERS, dtype=torch.float64)
        for index, batch in enumerate(batches):
            x0, noise, levels = self._fixed_noise(batch, index)
            with self._evaluating():
                context = self.turn.context(self.turn.conditioning(batch))
                sigma = [sigma for _, sigma in levels]
                predicted = self.turn.predict(x0, context, noise, sigma)
                rows = prediction_errors(
                    predicted, self.pipeline.process, x0, noise=noise, sigma=sigma, norm=self.objective.norm
                )
            quarter = torch.tensor([q for q, _ in levels])
            sums.index_add_(0, quarter, rows.double().cpu())
            counts.index_add_(0, quarter, torch.ones(len(levels), dtype=torch.float64))
        if not counts.sum():
            return {}
        figures = {"loss": float(sums.sum() / counts.sum())}
        each = zip((sums / counts).tolist(), counts.tolist(), strict=True)
        return figures | {f"loss_q{q + 1}": mean for q, (mean, count) in enumerate(each) if count}

    def predict(self, batch: Batch, signals: Mapping[str, Signal] | None = None) -> Tensor:
        """What the network predicts for a batch, without a graph: (B,C,h,w) float32.

        Noise and its levels follow from the batch's draws alone, so that calls differ by their conditions only.

        Args:
            signals: by slot, from `pipeline.conditioning(...)`; None: the batch's own, nothing dropped.
        """
        x0, noise, levels = self._fixed_noise(batch, 0)
        with self._evaluating():
            given = self.turn.context(self.turn.conditioning(batch)) if signals is None else signals
            return self.turn.predict(x0, given, noise, [sigma for _, sigma in levels])

    def _fixed_noise(self, batch: Batch, index: int) -> tuple[Tensor, Tensor, list[tuple[int, float]]]:
        """Latents, noise, and (quarter, sigma) a row: a function of the seed, the rows and the batch's index."""
        draws = Draws(batch.draws.seed, index, batch.draws.rows)
        x0 = self.turn.latents(replace(batch, draws=draws))
        noise = draws.normal("validation", x0.shape[1:]).to(x0)
        quantiles = UniformTimes(stratified=True).quantiles(draws, "validation")
        sigma = self.pipeline.process.sigma
        return x0, noise, [(min(int(u * QUARTERS), QUARTERS - 1), sigma(u)) for u in quantiles]

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        modes = {module: module.training for module in self.turn.trained.modules()}
        self.turn.trained.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, training in modes.items():
                module.training = training


def _enable_checkpointing(denoiser: Denoiser) -> None:
    if not hasattr(denoiser, "gradient_checkpointing"):
        what = f"{type(denoiser).__name__} cannot recompute its blocks"
        raise CompositionError("no-checkpointing", what, where="gradient_checkpointing", fits="false")
    denoiser.gradient_checkpointing = True


def _compile_blocks(denoiser: Denoiser) -> None:
    """In place: the calls of the blocks change, no module and no state-dict key."""
    regions = denoiser.regions or (type(denoiser),)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_RECOMPILES)
    for module in denoiser.modules():
        if type(module) in regions:
            module.compile(dynamic=False)
