"""Guidance by a classifier of noisy latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from pydantic import ConfigDict, Field, SerializeAsAny, model_validator
from torch import Tensor

from ldmkit.contracts import Evaluate, Guidance
from ldmkit.errors import SpecError
from ldmkit_processes.guidance.cfg import NoGuidance
from ldmkit_processes.guidance.gradient import gradient


class ClassifierGuidance(Guidance):
    """x0 + scale sigma^2 grad_x log p(y | x) (Dhariwal & Nichol 2021, algorithm 2, as a change of the x0 estimate).

    By Tweedie's formula x0 = x + sigma^2 grad log p(x), so at scale 1 the result is the estimate under p(x | y). In
    terms of the predicted noise the sign is the opposite one: eps - scale sigma grad_x log p.

    Args:
        classifier: (z (B,C,h,w) in the process's own frame, t (B,)) -> logits (B, classes); used with `labels`.
        labels: wanted class of each sample, or one for all.
        log_prob: instead of both: (x in the frame x0 + sigma n, sigma) -> log p(y | x) (B,), up to a constant.
        scale: s.
        base: the guidance whose estimate is changed.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    classifier: Callable[[Tensor, Tensor], Tensor] | None = Field(default=None, exclude=True)
    labels: tuple[int, ...] = ()
    log_prob: Callable[[Tensor, float], Tensor] | None = Field(default=None, exclude=True)
    scale: float = 1.0
    base: SerializeAsAny[Guidance] = NoGuidance()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.classifier is None) == (self.log_prob is None):
            raise SpecError("classifier", "give either `classifier` or `log_prob`", where="guidance")
        if self.classifier is not None and not self.labels:
            raise SpecError("classifier", "a classifier needs the wanted `labels`", where="guidance.labels")
        return self

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        """Raises SpecError: labels for another number of samples."""
        x0 = self.base(evaluate, x, sigma)
        if self.scale == 0:
            return x0
        slope = gradient(lambda free: self._log_prob(evaluate, free, sigma), x)
        return torch.add(x0, slope, alpha=self.scale * sigma * sigma)

    def views(self, names: Sequence[str]) -> int:
        return self.base.views(names)

    def _log_prob(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        if self.log_prob is not None:
            return self.log_prob(x, sigma)
        assert self.classifier is not None
        rows = x.shape[0]
        if len(self.labels) not in (1, rows):
            raise SpecError("labels", f"{len(self.labels)} labels for {rows} samples", where="guidance.labels")
        process = evaluate.process
        time = torch.full((rows,), process.time(sigma), dtype=x.dtype, device=x.device)
        logits = self.classifier(x * process.alpha(sigma), time)
        wanted = torch.tensor(self.labels, device=x.device).expand(rows)
        return logits.log_softmax(1).gather(1, wanted[:, None]).squeeze(1)
