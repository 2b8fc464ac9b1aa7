"""The denoiser's turn: noise on latents, conditions dropped by their nulls, and the error of what F predicts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ldmkit import Batch, Conditioning, Context, Loss, Pipeline, Signal, Turn
from ldmkit.files.pictures import read_mask
from ldmkit.run.context import prepared_context
from ldmkit.run.inputs import input_name, with_adapter_drops
from ldmkit.run.loss import output, predict, prediction_errors
from ldmkit_training.stages.denoiser.noises import mask_weights, training_noise
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from ldmkit_training.stages.denoiser.variance import check_variance, variance_bound
from ldmkit_training.stages.denoiser.weightings import elbo_weights
from ldmkit_training.stages.given import check_given
from ldmkit_training.stages.latents import conditions_size, latents_of


class DenoiserTurn(Turn):
    """One optimiser for the denoiser, and the conditioners and adapters that are trained with it.

    Args:
        pipeline: the pipeline whose modules are trained; not a submodule itself.
        objective: the loss to minimise.
        trained: part name -> module.
        required: names of inputs without which a sample is an error.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        objective: DenoiserObjective,
        trained: Mapping[str, nn.Module],
        required: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.required = tuple(required)
        self.pipeline, self.objective = pipeline, objective
        self.encode: Callable[[Batch], Conditioning] = self._encoded
        self.names = dropped_names(pipeline)
        objective.dropout.check(self.names)
        self.trained = nn.Module()
        for name, part in trained.items():  # a ModuleDict refuses names such as `keys` and `type`
            self.trained.add_module(f"part-{name}", part)
        self._factor = objective.weighting.bound(pipeline.process)
        if (said := check_variance(pipeline.denoiser, pipeline.process, objective.variance)) is not None:
            warnings.warn(said, stacklevel=2)
        self._elbo: tuple[float, ...] | None = None
        self.logvar: nn.Parameter | None = None
        if objective.elbo or objective.logvar is not None:
            self._elbo = elbo_weights(pipeline.process)
        if objective.logvar is not None:
            table = torch.full((len(self._elbo or ()),), objective.logvar.init)
            self.logvar = nn.Parameter(table, requires_grad=objective.logvar.train)

    def forward(self, batch: Batch, step: int) -> Loss:
        x0 = self.latents(batch)
        sigma = self.objective.times.sigmas(self.pipeline.process, batch.draws)
        objective = self.objective
        noise = training_noise(batch.draws, x0.shape[1:], objective.noise_offset, objective.pyramid).to(x0)
        kept = self.objective.dropout.kept(self.names, batch.draws)
        conditioning = self.conditioning(batch)
        pipe, context = self.pipeline, self.context(conditioning, kept)
        made = output(pipe.denoiser, pipe.process, x0, context, noise=noise, sigma=sigma)
        plain = prediction_errors(
            made[:, : x0.shape[1]], pipe.process, x0, noise=noise, sigma=sigma, norm=objective.norm,
            weights=self.weights(batch, x0),
        )  # fmt: skip
        bound = None
        if objective.variance:
            bound = variance_bound(made, pipe.process, x0, noise=noise, sigma=sigma)
        return self._loss(plain, sigma, bound)

    def weights(self, batch: Batch, x0: Tensor) -> Tensor | None:
        """(B,1,h,w): weight of the error at each latent position; None if the objective has no masks."""
        if (section := self.objective.mask) is None:
            return None
        given = [row.get(section.input) for row in batch.inputs]
        places = (f"inputs[{number}].{section.input}" for number in range(len(given)))
        masks = [None if one is None else read_mask(one, where) for one, where in zip(given, places, strict=True)]
        return mask_weights(masks, (x0.shape[-2], x0.shape[-1]), section.outside).to(x0.device)

    def latents(self, batch: Batch) -> Tensor:
        """(B,C,h,w) float32: cached, or encoded here; a sample of the posterior if the objective asks for it."""
        sample = self.objective.posterior == "sample"
        return latents_of(batch, self.pipeline.codec, self.pipeline.device, sample=sample)

    def conditioning(self, batch: Batch) -> Conditioning:
        """The conditions of a batch, with an autograd graph to the trained conditioners.

        Raises:
            InputError: `missing-input`; the sample is named.
        """
        for name in self.required:
            check_given(batch, name)
        return self.encode(batch)

    @contextmanager
    def encoding_by(self, encode: Callable[[Batch], Conditioning]) -> Iterator[None]:
        """Inside the block another function provides the conditions of batches, so that a check can mark them."""
        before, self.encode = self.encode, encode
        try:
            yield
        finally:
            self.encode = before

    def _encoded(self, batch: Batch) -> Conditioning:
        grad = torch.is_grad_enabled()
        inputs = conditions(batch.inputs, self.objective)
        return self.pipeline.conditioning(
            inputs, size=conditions_size(batch, self.pipeline.codec), grad=grad, draws=batch.draws
        )

    @property
    def drop_rates(self) -> Mapping[str, float]:
        """Input name -> share of the rows that train without it."""
        return self.objective.dropout.expected(self.names)

    def context(self, conditioning: Conditioning, kept: Mapping[str, Tensor] | None = None) -> Context:
        """What the denoiser reads, adapters included; `kept` by input name (B,) bool, None: all."""
        kept = {name: keep for name, keep in (kept or {}).items() if name in conditioning.names}
        signals, present = conditioning.kept(kept)
        pipe, given = self.pipeline, conditioning.given()
        return prepared_context(pipe.denoiser, pipe.adapters, signals, present, run=None, given=given)

    def predict(self, x0: Tensor, signals: Mapping[str, Signal] | Context, noise: Tensor, sigma: list[float]) -> Tensor:
        """F of x0 with noise at one sigma per row, float32."""
        pipe = self.pipeline
        return predict(pipe.denoiser, pipe.process, x0, signals, noise=noise, sigma=sigma)

    def groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        named = {name.removeprefix("part-"): list(part.parameters()) for name, part in self.trained.named_children()}
        if self.logvar is not None and self.logvar.requires_grad:
            named["logvar"] = [self.logvar]
        return named

    def reaches(self) -> Mapping[str, frozenset[str]]:
        networks = frozenset(self.groups()) - {"logvar"}
        reached = {}
        if self.objective.simple:
            reached["simple"] = frozenset(self.groups())
        if self.objective.elbo:
            reached["elbo"] = networks
        if self.objective.variance:
            reached["variance"] = networks
        return reached

    def _loss(self, plain: Tensor, sigma: Sequence[float], bound: Tensor | None = None) -> Loss:
        """The weighted sum of loss terms from the rows' unweighted errors (B,) and the bound of their variance (B,)."""
        objective, process = self.objective, self.pipeline.process
        factors = plain.new_tensor([self._factor(s) for s in sigma])
        rows = plain * factors
        timesteps = [round(process.time(s)) for s in sigma] if self._elbo is not None else []
        if self.logvar is not None:
            logvar = self.logvar[torch.tensor(timesteps, device=plain.device)]
            rows = rows / logvar.exp() + logvar
        parts: dict[str, Tensor] = {}
        if objective.simple:
            parts["simple"] = objective.simple * rows.mean()
        if objective.elbo and self._elbo is not None:
            weights = plain.new_tensor([self._elbo[t] for t in timesteps])
            parts["elbo"] = objective.elbo * (weights * plain).mean()
        if bound is not None:
            parts["variance"] = objective.variance * bound.mean()
        total = torch.stack(list(parts.values())).sum() if parts else plain.mean() * 0
        return Loss(total, {"error": plain.detach().mean()}, parts)


def conditions(rows: Sequence[Mapping[str, Any]], objective: DenoiserObjective) -> list[Mapping[str, Any]]:
    """Rows of inputs without those that weigh errors, which the model does not read."""
    own = objective.mask
    return [row if own is None else {name: v for name, v in row.items() if name != own.input} for row in rows]


def dropped_names(pipeline: Pipeline) -> tuple[str, ...]:
    """Input names that have a null and may be dropped, in spec order."""
    names = []
    for name, part in pipeline.conditioners.items():
        wire = with_adapter_drops(pipeline.wiring[name], pipeline.parts.routes[name], pipeline.parts)
        if wire.null == "zero" or (wire.null == "default" and part.has_null):
            names.append(input_name(name, wire))
    return tuple(dict.fromkeys(names))
