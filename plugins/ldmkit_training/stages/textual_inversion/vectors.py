"""The vectors of a new token, which stand in for the rows of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldmkit import Batch, LearnsTokens, Loss
from ldmkit_training.stages.denoiser.objective import DenoiserTurn


class TokenVectors(nn.Module):
    """The trained vectors (n, width) of a token, by text encoder; the tables keep what they hold.

    Args:
        towers: by name, with a table that has rows for the token already.
        word: the token.
    """

    def __init__(self, towers: Mapping[str, LearnsTokens], word: str) -> None:
        super().__init__()
        self.names = tuple(towers)
        self.vectors = nn.ParameterList()
        for tower in towers.values():
            table, ids = tower.token_table, tower.token_ids(word)
            assert table is not None, "checked when the stage was built"
            rows = nn.Parameter(table.weight.detach()[ids].float().clone())
            self.vectors.append(rows)
            table.register_forward_hook(_StandIn(rows, ids))

    def named(self) -> dict[str, Tensor]:
        """Text encoder -> its vectors."""
        return dict(zip(self.names, self.vectors, strict=True))


class _StandIn:
    """Hook of a table: what is looked up, with a token's vectors in the place of its rows."""

    def __init__(self, vectors: nn.Parameter, ids: Sequence[int]) -> None:
        self.vectors, self.ids = vectors, tuple(ids)

    def __call__(self, _table: nn.Module, asked: tuple[Any, ...], found: Tensor) -> Tensor:
        for vector, row in zip(self.vectors, self.ids, strict=True):
            found = torch.where((asked[0] == row)[..., None], vector.to(found.dtype), found)
        return found


class TokenTurn(DenoiserTurn):
    """The denoiser's turn, whose gradient goes to a token's vectors alone."""

    def forward(self, batch: Batch, step: int) -> Loss:
        """See `DenoiserTurn`."""
        loss = super().forward(batch, step)
        none = sum(vectors.sum() * 0 for vectors in self.trained.parameters())  # of rows without the token
        parts = {name: part + none for name, part in loss.parts.items()}
        return Loss(loss.total + none, loss.terms, parts)
