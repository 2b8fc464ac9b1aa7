"""Stages that train with noise on latents: a denoiser, or adapters and conditioners around one."""

from __future__ import annotations

from abc import ABC
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from ldmkit import Batch, CompositionError, Denoiser, Draws, Pipeline, Signal
from ldmkit.run.loss import prediction_errors
from ldmkit_training.stages.denoiser.objective import DenoiserTurn
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from ldmkit_training.stages.denoiser.times import UniformTimes
from ldmkit_training.stages.pipeline import PipelineStage

QUARTERS = 4


class DenoisingStage(PipelineStage, ABC):
    """A stage with a single turn, a `DenoiserTurn`; `set_up` is called when it is built.

    Attributes:
        turn: the turn.
        objective: the loss it minimises.
    """

    turn: DenoiserTurn
    objective: DenoiserObjective

    def set_up(
        self,
        pipeline: Pipeline,
        objective: DenoiserObjective,
        trained: Mapping[str, nn.Module],
        *,
        gradient_checkpointing: bool = False,
        required: Collection[str] = (),
        turn: type[DenoiserTurn] = DenoiserTurn,
    ) -> None:
        """Set up the turn that trains these parts of a pipeline; its other parts are frozen.

        Args:
            trained: by name (`denoiser`, a conditioner's or an adapter's name).
            gradient_checkpointing: recompute every block of the denoiser in the backward pass instead of keeping it.
            required: names of inputs without which a sample is an error.
            turn: class of the turn.

        Raises:
            CompositionError: `no-checkpointing`; an unknown name under `objective.dropout`.
        """
        self.read(pipeline)
        self.objective = objective
        self.turn = turn(pipeline, objective, trained, required)
        self.denoising = self.turn
        self.turns = {"denoiser": self.turn}
        if self.mask is not None:
            if self.mask in self.inputs:
                what = f"the model reads the input {self.mask!r}: it cannot weigh errors as well"
                raise CompositionError("mask-taken", what, where="objective.mask.input", fits="another name")
            self.inputs |= {self.mask}
        self._frozen: dict[str, nn.Module] = {"codec": pipeline.codec}
        parts = {"denoiser": pipeline.denoiser, **pipeline.conditioners, **pipeline.adapters}
        for name, part in parts.items():
            shared = name in pipeline.wiring and pipeline.wiring[name].shares is not None
            if name not in trained and not shared:
                self._frozen[name] = part
        if gradient_checkpointing:
            _enable_checkpointing(pipeline.denoiser)

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
                    predicted, self.pipeline.process, x0, noise=noise, sigma=sigma, norm=self.objective.norm,
                    weights=self.turn.weights(batch, x0),
                )  # fmt: skip
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
