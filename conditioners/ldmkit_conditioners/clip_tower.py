"""The CLIP text transformer: OpenAI's CLIP-L, open-CLIP's ViT-H and bigG, by config.

Written here rather than imported: transformers' CLIP classes take seconds to import, and their key names
change between versions. Native keys never do; `ldmkit_checkpoints` maps the published layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ldmkit import Frame, PortedLinear, Value
from ldmkit.bounds import Heads, Layers, Length, Rows, Width
from ldmkit_conditioners.token_table import with_rows
from ldmkit_conditioners.transformer import Activation, Block


class ClipConfig(Value):
    """Shape of a tower; the defaults are CLIP ViT-L/14's.

    Args:
        projection: width of the pooled projection, None where the file has none.
        bos, eos, pad: token ids; open-CLIP pads with 0.
        max_length: ids in a row, where a tokenizer makes rows shorter than `positions`; None: `positions`.
        pool: where the pooled state is read: at the first `eos`, or at the largest id.
    """

    vocab_size: Rows = 49408
    width: Width = 768
    layers: Layers = 12
    heads: Heads = 12
    mlp: Width = 3072
    positions: Length = Field(default=77, gt=1)
    activation: Activation = "quick_gelu"
    projection: Width | None = None
    bos: int = 49406
    eos: int = 49407
    pad: int = 49407
    pool: Literal["first-eos", "argmax"] = "first-eos"
    max_length: Length | None = Field(default=None, gt=1)

    @model_validator(mode="after")
    def _fits(self) -> ClipConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        if self.max_length is not None and self.max_length > self.positions:
            raise ValueError(f"max_length {self.max_length} is above {self.positions} positions")
        for name in ("bos", "eos", "pad"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ValueError(f"{name} {getattr(self, name)} is not below vocab_size {self.vocab_size}")
        return self


class ClipTower(nn.Module):
    """Token ids -> hidden states (arXiv:2103.00020, section 2.4): causal attention, no padding mask."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        shape = (config.width, config.heads, config.width // config.heads, config.mlp, config.activation)
        self.blocks = nn.ModuleList(Block(*shape, bias=True, causal=True) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        wide = config.projection
        self.projection = None if wide is None else PortedLinear(config.width, wide, bias=False)

    def forward(self, ids: Tensor, blocks: int | None = None, frame: Frame | None = None) -> Tensor:
        """State after `blocks` blocks (None: all), without the final norm: (B, L) int64 -> (B, L, width).

        With a frame, taps at the ports of the linear layers are called.
        """
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks[:blocks]:
            x = block(x, frame)
        return x

    def learn(self, ids: Sequence[int], vectors: Tensor) -> None:
        """Rows `ids` of a new, longer table of tokens are the vectors (n, width); the old table is left alone."""
        self.tokens = with_rows(self.tokens, ids, vectors)
        self.config = self.config.model_copy(update={"vocab_size": len(self.tokens.weight)})

    def pooled(self, ids: Tensor, frame: Frame | None = None) -> Tensor:
        """Final-normed state at the end token, projected where the tower has a projection: (B, projection or width)."""
        state = self.at_end(ids, frame)
        return state if self.projection is None else self.projection(state, frame)

    def at_end(self, ids: Tensor, frame: Frame | None = None) -> Tensor:
        """Final-normed state at the end token: (B, L) int64 -> (B, width)."""
        wanted = ids if self.config.pool == "argmax" else (ids == self.config.eos).int()
        end = wanted.argmax(dim=1)
        return self.norm(self(ids, frame=frame)[torch.arange(len(ids), device=ids.device), end])  # type: ignore[no-any-return]
