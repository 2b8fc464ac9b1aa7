"""Classifiers that break one promise each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from broken_modules import module_faults
from good_classifier import Few
from torch import Tensor


class ClassesAsText(Few):
    def __init__(self, config: Any = None):
        super().__init__(config)
        self.classes = str(self.classes)  # type: ignore[assignment]


class OneNameTwice(Few):
    def __init__(self, config: Any = None):
        super().__init__(config)
        self.names = ("cat", "cat", "dog")


class NamesTooFew(Few):
    def __init__(self, config: Any = None):
        super().__init__(config)
        self.names = ("cat",)


class NoNames(Few):
    """Takes what it gets for a number."""

    def number(self, label: int | str, where: str) -> int:
        return int(label)


class Clips(Few):
    def number(self, label: int | str, where: str) -> int:
        return super().number(min(max(label, 0), self.classes - 1) if isinstance(label, int) else label, where)


class Probabilities(Few):
    """One class too many."""

    def forward(self, x: Tensor, sigma: Sequence[float]) -> Tensor:
        return torch.nn.functional.pad(super().forward(x, sigma), (0, 1))


class OneSize(Few):
    def forward(self, x: Tensor, sigma: Sequence[float]) -> Tensor:
        return super().forward(x.flatten(1).view(-1, self.channels, 8, 8), sigma)


class ListsOnly(Few):
    def forward(self, x: Tensor, sigma: Sequence[float]) -> Tensor:
        return super().forward(x, sigma.copy())  # type: ignore[attr-defined]


class Overflows(Few):
    def forward(self, x: Tensor, sigma: Sequence[float]) -> Tensor:
        return super().forward(x, sigma) + torch.tensor([s**40 for s in sigma])[:, None]


class OneLevel(Few):
    """Takes the first row's noise level for all."""

    def forward(self, x: Tensor, sigma: Sequence[float]) -> Tensor:
        return super().forward(x, [sigma[0]] * len(sigma))


class Deaf(Few):
    def forward(self, x: Tensor, sigma: Sequence[float]) -> Tensor:
        return super().forward(x, [1.0] * len(sigma))


class Cut(Few):
    @torch.no_grad()
    def forward(self, x: Tensor, sigma: Sequence[float]) -> Tensor:
        return super().forward(x, sigma)


class BlindChannel(Few):
    def forward(self, x: Tensor, sigma: Sequence[float]) -> Tensor:
        return super().forward(torch.cat([x[:, :-1], x[:, -1:].detach()], 1), sigma)


class Waits(Few):
    def forward(self, x: Tensor, sigma: Sequence[float]) -> Tensor:
        return super().forward(x / max(1.0, x.abs().max().item()), sigma)


BROKEN: dict[str, list[type[Any]]] = {
    "declared": [ClassesAsText, OneNameTwice, NamesTooFew],
    "number": [NoNames, Clips],
    "shape": [Probabilities, OneSize, ListsOnly, Overflows],
    "sigma-matters": [OneLevel, Deaf],
    "gradient": [Cut, BlindChannel],
    "no-waiting": [Waits],
    **{name: [cls] for name, cls in module_faults(Few, "forward").items()},
}
"""Check -> parts that it must catch."""
