"""The unified predictor-corrector of Zhao et al. 2023."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Example, Sampler, Step
from ldmkit_samplers.changes import plus

Variant = Literal["bh1", "bh2"]


class UniPC(Sampler):
    """Zhao et al. 2023, algorithms 5 and 6 (data prediction): one evaluation a step predicts the next state and
    corrects the current one. Orders rise at the start and fall at the end, as published.

    Args:
        solver_order: order of the predictor, 1 to 3; with the corrector the order of the method is one higher.
        variant: B(h) of the paper, h ("bh1") or e^h - 1 ("bh2").
        corrector: False uses the predictor only.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"solver_order": 3, "variant": "bh1"}),
        Example({"corrector": False}),
    )
    solver_order: int = Field(default=2, ge=1, le=3)
    variant: Variant = "bh2"
    corrector: bool = True
    revision: Literal[1] = 1

    @property
    def order(self) -> int:
        return min(self.solver_order + self.corrector, 3)  # the first step is at most of second order

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        rows = _plan(tuple(sigmas), self.solver_order, self.variant)
        changes: list[Tensor] = []  # x0 of each step minus that of the step before, newest first
        correct: tuple[float, ...] = ()
        before = x
        for i, row in enumerate(rows):
            x0 = denoise(x, sigmas[i])
            if i:
                changes = [x0 - before, *changes[:2]]
                if self.corrector:
                    x = plus(x.add(changes[0], alpha=correct[0]), changes[1:], correct[1:])
            x = plus(torch.lerp(x0, x, row.keep), changes, row.predict)
            before, correct = x0, row.correct
            yield Step(i, len(rows), sigmas[i], sigmas[i + 1], x, x0)


class Row(NamedTuple):
    """One transition. Predictor: x' = x0 + keep (x - x0) + sum_k predict_k change_k, x0's changes newest first.

    Corrector, when x0' is known: x' + correct_0 (x0' - x0) + sum_k correct_(k+1) change_k.
    """

    keep: float
    predict: tuple[float, ...]
    correct: tuple[float, ...]


@lru_cache(maxsize=32)
def _plan(sigmas: tuple[float, ...], order: int, variant: Variant) -> tuple[Row, ...]:
    count = len(sigmas) - 1
    rows = []
    for i in range(count):
        if sigmas[i + 1] == 0:
            rows.append(Row(0.0, (), ()))
            continue
        used = min(order, i + 1, count - i)
        h = math.log(sigmas[i] / sigmas[i + 1])
        past = [math.log(sigmas[i] / sigmas[i - k]) / h for k in range(1, used)]  # r_k < 0, of (x0_{i-k} - x0_i)
        scale = math.expm1(-h) if variant == "bh2" else -h
        predict = _moments([0.5] if used == 2 else _solve(past, h, scale), past, scale)
        after = _solve([*past, 1.0], h, scale) if used > 1 else [0.5]
        correct = _moments(after[:-1], past, scale)
        change = [c - p for c, p in zip(correct, predict, strict=True)]
        rows.append(Row(sigmas[i + 1] / sigmas[i], tuple(predict), (-scale * after[-1], *change)))
    return tuple(rows)


def _moments(weights: Sequence[float], past: Sequence[float], scale: float) -> list[float]:
    """Factors of the successive changes, from those of x0_{i-k} - x0_i = -(change_1 + ... + change_k)."""
    terms = [scale * w / r for w, r in zip(weights, past, strict=True)]
    return [sum(terms[k:]) for k in range(len(terms))]


def _solve(nodes: Sequence[float], h: float, scale: float) -> list[float]:
    """rho with sum_k rho_k r_k^(n-1) = n! phi_(n+1)(-h) (-h) / B(h), n = 1 ... (the paper's equation 5)."""
    if not nodes:
        return []
    right, phi, factorial = [], math.expm1(-h) / -h - 1, 1.0
    for n in range(1, len(nodes) + 1):
        right.append(phi * factorial / scale)
        factorial *= n + 1
        phi = phi / -h - 1 / factorial
    matrix = torch.tensor([[r ** (n - 1) for r in nodes] for n in range(1, len(nodes) + 1)], dtype=torch.float64)
    return [float(v) for v in torch.linalg.solve(matrix, torch.tensor(right, dtype=torch.float64))]
