"""The turn with class pictures beside those of the data (Ruiz et al. 2023, equation 2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ldmkit import Batch, Draws, Loss, Pipeline
from ldmkit.contracts.draws import seed_of
from ldmkit_training.stages.denoiser.objective import DenoiserTurn
from ldmkit_training.stages.dreambooth.section import PriorSection


class PriorTurn(DenoiserTurn):
    """Trains on as many class pictures as a batch has rows, besides the batch; `prior_of` selects them.

    The pictures are latents that the pipeline without what is trained has drawn, once for each size of pictures.
    """

    base: Pipeline
    prior: PriorSection
    seed = 0

    def prior_of(self, base: Pipeline, prior: PriorSection, seed: int) -> None:
        """Set the pipeline that draws the class pictures, their inputs, and the first seed."""
        self.base, self.prior, self.seed = base, prior, seed
        self._drawn: dict[tuple[int, int], Tensor] = {}

    def forward(self, batch: Batch, step: int) -> Loss:
        own = super().forward(batch, step)
        known = super().forward(self.class_batch(batch), step)
        part = self.prior.weight * known.total
        terms = {**own.terms, "prior": known.total.detach()}
        return Loss(own.total + part, terms, {**own.parts, "prior": part})

    def reaches(self) -> Mapping[str, frozenset[str]]:
        return {**super().reaches(), "prior": frozenset(self.groups())}

    def class_batch(self, batch: Batch) -> Batch:
        """Class pictures for a batch, by its draws alone, with noise of their own."""
        drawn, draws = self._pictures(batch.size), batch.draws
        chosen = [int(u * self.prior.count) for u in draws.uniform("prior").tolist()]
        own = Draws(seed_of(draws.seed, "prior") % 2**31, draws.step, draws.rows)
        ids = tuple(f"class picture {index}" for index in chosen)
        rows = [dict(self.prior.inputs) for _ in chosen]
        return Batch(ids, None, drawn[chosen], None, rows, batch.size, own)

    def _pictures(self, size: tuple[int, int]) -> Tensor:
        if size not in self._drawn:
            prior, made = self.prior, []
            for first in range(0, prior.count, prior.batch):
                seeds = [self.seed + i for i in range(first, min(first + prior.batch, prior.count))]
                with torch.no_grad(), torch.autocast(self.base.device.type, enabled=False):
                    output = self.base(
                        dict(prior.inputs), size=size, seeds=seeds, steps=prior.steps, guidance=prior.guidance
                    )
                made.append(output.latents.float().cpu())
            self._drawn[size] = torch.cat(made)
        return self._drawn[size]
