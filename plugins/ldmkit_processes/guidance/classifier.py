"""Guidance by a classifier of noisy latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Self

import torch
from pydantic import ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema
from torch import Tensor

from ldmkit import Classifier, Evaluate, Example, Guidance, SpecError, Value, View, load_classifier
from ldmkit.bounds import SignedScale
from ldmkit_processes.guidance.cfg import CFG, Interval, NoGuidance, outside
from ldmkit_processes.guidance.gradient import gradient
from ldmkit_processes.guidance.nested import Nested

Label = Annotated[int, Field(strict=True)] | str
"""A class by number or by name."""


class Brightness(Value):
    """A toy classifier for examples: class 1 is bright, class 0 dark, by the mean of a sample."""

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        """Logits (B, 2) of z (B, ...), whatever the time."""
        mean = z.flatten(1).mean(1)
        return torch.stack([-mean, mean], dim=1)


class ClassifierGuidance(Guidance):
    """x0 + scale sigma^2 grad_x log p(y | x) (Dhariwal & Nichol 2021, algorithm 2, as a change of the x0 estimate).

    By Tweedie's formula x0 = x + sigma^2 grad log p(x), so at scale 1 the result is the estimate under p(x | y). In
    terms of the predicted noise the sign is opposite: eps - scale sigma grad_x log p.

    Args:
        classifier: (z (B,C,h,w) on the process's own scale, t (B,)) -> logits (B, classes); used with `labels`.
        labels: target class of each sample, or one for all; by number, or by the names of a `model`.
        log_prob: instead of both: (x = x0 + sigma n, sigma) -> log p(y | x) (B,), up to a constant.
        scale: s.
        base: the guidance whose estimate is changed.
        model: instead of a function: folder of a saved classifier (`ldmkit.load_classifier`); used with `labels`.
        interval: noise levels (low, high] at which the classifier acts; elsewhere only `base`.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example({"classifier": Brightness(), "labels": (1,)}),
        Example({"classifier": Brightness(), "labels": (0,), "scale": 3.0, "base": CFG(scale=3.0)}),
    )
    model_config = ConfigDict(arbitrary_types_allowed=True)

    classifier: SkipJsonSchema[Callable[[Tensor, Tensor], Tensor] | None] = Field(default=None, exclude=True)
    labels: tuple[Label, ...] = ()
    log_prob: SkipJsonSchema[Callable[[Tensor, float], Tensor] | None] = Field(default=None, exclude=True)
    scale: SignedScale = 1.0
    base: Nested = NoGuidance()
    model: str | None = None
    interval: Interval = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.model, self.classifier, self.log_prob)) != 1:
            what = "give one of `model`, `classifier` and `log_prob`"
            raise SpecError("classifier", what, where="guidance")
        if self.log_prob is None and not self.labels:
            raise SpecError("classifier", "a classifier requires target `labels`", where="guidance.labels")
        return self

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        """Raises SpecError: labels for another number of samples."""
        x0, slope = self._parts(evaluate, x, sigma)
        return x0 if slope is None else torch.add(x0, slope, alpha=self.scale * sigma * sigma)

    def split(self, evaluate: Evaluate, x: Tensor, sigma: float) -> tuple[Tensor, Tensor] | None:
        x0, slope = self._parts(evaluate, x, sigma)
        return x0, torch.zeros_like(x) if slope is None else slope * self.scale

    def _parts(self, evaluate: Evaluate, x: Tensor, sigma: float) -> tuple[Tensor, Tensor | None]:
        """The estimate of `base`, and grad_x log p(y | x); None where the classifier does not act."""
        x0 = self.base(evaluate, x, sigma)
        if self.scale == 0 or outside(self.interval, sigma):
            return x0, None
        return x0, gradient(lambda free: self._log_prob(evaluate, free, sigma), x)

    @property
    def differentiates(self) -> bool:
        return self.base.differentiates  # its own gradient is the classifier's alone

    def plain(self, scale: float) -> None:
        return None

    def views(self, names: Sequence[str]) -> int:
        return self.base.views(names)

    def weights(self, names: Sequence[str], sigma: float) -> Mapping[View, float] | None:
        return self.base.weights(names, sigma)

    def _log_prob(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        if self.log_prob is not None:
            return self.log_prob(x, sigma)
        rows = x.shape[0]
        if len(self.labels) not in (1, rows):
            raise SpecError("labels", f"{len(self.labels)} labels for {rows} samples", where="guidance.labels")
        logits, numbers = self._judged(evaluate, x, sigma)
        wanted = torch.tensor(numbers, device=x.device).expand(rows)
        return logits.log_softmax(1).gather(1, wanted[:, None]).squeeze(1)

    def _judged(self, evaluate: Evaluate, x: Tensor, sigma: float) -> tuple[Tensor, list[int]]:
        """Logits (B, classes), and the wanted classes."""
        if self.model is not None:
            network = _loaded(self.model, _changed(self.model), str(x.device))
            return network(x, [sigma] * x.shape[0]), [network.number(v, "guidance.labels") for v in self.labels]
        assert self.classifier is not None, "checked when it was made"
        process = evaluate.process
        time = torch.full((x.shape[0],), process.time(sigma), dtype=x.dtype, device=x.device)
        numbers = [label for label in self.labels if isinstance(label, int)]
        if len(numbers) < len(self.labels):
            raise SpecError("labels", "a function has no names of classes", where="guidance.labels", fits="numbers")
        return self.classifier(x * process.alpha(sigma), time), numbers


@lru_cache(maxsize=2)
def _loaded(path: str, changed: float, device: str) -> Classifier:
    return load_classifier(path, device=device, dtype="float32")


def _changed(path: str) -> float:
    """Modification time of the folder, so that a classifier that was trained further is reloaded."""
    folder = Path(path)
    return folder.stat().st_mtime if folder.exists() else 0.0
