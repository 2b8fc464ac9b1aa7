"""Token tables to which learnt vectors are added."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def with_rows(table: nn.Embedding, ids: Sequence[int], vectors: Tensor) -> nn.Embedding:
    """A new, longer table whose rows `ids` are the vectors (n, width); the old one does not change."""
    old = table.weight
    rows = max(len(old), *(id_ + 1 for id_ in ids))
    grown = old.detach().new_zeros(rows, old.shape[1])
    grown[: len(old)] = old.detach()
    grown[list(ids)] = vectors.to(grown)
    made = nn.Embedding(rows, old.shape[1], _weight=grown)
    made.weight.requires_grad_(old.requires_grad)
    return made
