"""The prior of unCLIP (Ramesh et al. 2022, section 2.2): a causal transformer that denoises an embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldmkit import (
    CompositionError,
    Context,
    Denoiser,
    Example,
    Frame,
    InputError,
    Port,
    PortedLinear,
    Signal,
    Slot,
    SpecError,
    Tokens,
    Value,
    Vector,
    Work,
    linear_ports,
)
from ldmkit.bounds import Heads, Layers, Length, Width
from ldmkit_denoisers.attention import attend, tapped
from ldmkit_denoisers.embeddings import EmbeddingMLP, frequencies, sinusoidal

_TINY = {"channels": 6, "width": 8, "layers": 2, "heads": 2, "context_dim": 6, "length": 5, "vector_dim": 4}


class PriorConfig(Value):
    """A prior; the defaults are Karlo's.

    Args:
        channels: width of the embedding.
        width, layers, heads: of the transformer.
        context_dim: width of the text's tokens; None: no tokens.
        length: the text's tokens.
        vector_dim: width of the text's embedding; None: none is read.
    """

    channels: Width = 768
    width: Width = 2048
    layers: Layers = 20
    heads: Heads = 32
    context_dim: Width | None = 768
    length: Length = 77
    vector_dim: Width | None = 768

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise SpecError("heads", f"{self.heads} heads do not divide width {self.width}", where="heads")
        return self

    @property
    def tokens(self) -> int:
        """Length of the whole sequence: the text, its embedding, the time, the noisy embedding, the query."""
        return (0 if self.context_dim is None else self.length) + (self.vector_dim is not None) + 3


@dataclass
class PriorContext(Context):
    """What no step changes.

    Args:
        text: the text's tokens and embedding, projected (B, length + 1, width), without positions.
        mask: (B, 1, L, L) bool over the whole sequence, True = attend.
    """

    text: Tensor | None = None
    mask: Tensor | None = None


class PriorBlock(nn.Module):
    """Masked self-attention and a GELU feed-forward of factor 4, each after a LayerNorm, each with its residual.

    Ports: `attn.<path>` gets the attention's result (B, L, C) before its output projection, with `query`, `key` and
    `value` (B, H, L, D) in `frame.scratch`; `self.<path>` the hidden states after its residual.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = PortedLinear(width, 3 * width), PortedLinear(width, width)
        self.inner, self.outer = PortedLinear(width, 4 * width), PortedLinear(4 * width, width)
        self.attn_port, self.port = Port(width), Port(width)

    def forward(self, x: Tensor, mask: Tensor, frame: Frame) -> Tensor:
        """(B, L, width) -> the same shape."""
        qkv = self.qkv(self.norm_1(x), frame).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = attend(q, k, v, mask, False)
        if self.attn_port.taps:
            y = tapped(self.attn_port, y, (q, k, v), frame)
        x = x + self.out(y, frame)
        if self.port.taps:
            x = self.port(x, frame)
        return x + self.outer(F.gelu(self.inner(self.norm_2(x), frame)), frame)  # type: ignore[no-any-return]


class Prior(Denoiser):
    """F(x, t, context): noisy embeddings x (B, channels), t (B,) in training steps -> (B, channels).

    The sequence is [text tokens, text embedding, time, noisy embedding, query], with learned positions; a token attends
    to itself and those before it, padding of the text excepted. The result is read at the query.

    Slots: `context`, the text's tokens with their padding mask, and `vector`, its embedding. Ports: `attn.<path>` and
    `self.<path>` of every block, `linear.<path>` of every layer.
    """

    Config = PriorConfig
    config: PriorConfig
    examples = (
        Example(_TINY),
        Example({**_TINY, "context_dim": None, "heads": 1}),
        Example({**_TINY, "vector_dim": None}),
    )
    latent_axes = 0
    regions = (PriorBlock,)
    gradient_checkpointing: bool = False
    """In training, recompute every block in the backward pass instead of keeping it."""

    def __init__(self, config: PriorConfig | None = None):
        super().__init__(config)
        c = self.config
        self.channels, self.slots = c.channels, _slots(c)
        self.enter = PortedLinear(c.channels, c.width)
        self.time = EmbeddingMLP(c.width, c.width)
        self.context = None if c.context_dim is None else PortedLinear(c.context_dim, c.width)
        self.vector = None if c.vector_dim is None else PortedLinear(c.vector_dim, c.width)
        self.query = nn.Parameter(nn.init.normal_(torch.empty(c.width), std=0.02))
        self.positions = nn.Parameter(nn.init.normal_(torch.empty(c.tokens, c.width), std=0.02))
        self.blocks = nn.ModuleList(PriorBlock(c.width, c.heads) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.width)
        self.leave = PortedLinear(c.width, c.channels)
        inner = {f"attn.blocks.{i}": block.attn_port for i, block in enumerate(self.blocks)}
        inner |= {f"self.blocks.{i}": block.port for i, block in enumerate(self.blocks)}
        self.ports = inner | linear_ports(self)

    def prepare(self, signals: Mapping[str, Signal]) -> PriorContext:
        """Project the text, and join its padding mask with the causal one, once per run.

        Raises:
            CompositionError: `missing-signal`: a slot of the network is not filled.
            InputError: `token-count`: more tokens than the network has places for.
        """
        for name in self.slots:
            if name not in signals:
                have = ", ".join(sorted(signals)) or "none"
                raise CompositionError("missing-signal", f"no {name!r} condition", fits=f"slots filled: {have}")
        context = PriorContext(signals)
        context.text, context.mask = self._text(context), self._mask(signals)
        return context

    def adapted(self, context: Context) -> Context:
        """See `Denoiser.adapted`: projects the text again, through taps."""
        layers = (layer for layer in (self.context, self.vector) if layer is not None)
        if isinstance(context, PriorContext) and any(layer.port.taps for layer in layers):
            context.text = self._text(context)
        return context

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        """F, in the network's dtype.

        Raises:
            CompositionError: the context is another network's.
        """
        if not isinstance(context, PriorContext):
            raise CompositionError("foreign-context", "the context was not prepared by a prior")
        frame, width = Frame(x, t, context, sigma), self.config.width
        code = sinusoidal(t, frequencies(width, 0.0, t.device), width).to(self.query.dtype)
        noisy = self.enter(x.to(self.query.dtype), frame)
        own = torch.stack([self.time(code, frame), noisy, self.query.expand(len(x), -1)], dim=1)
        h = (own if context.text is None else torch.cat([context.text, own], dim=1)) + self.positions
        mask = context.mask if context.mask is not None else _causal(self.config.tokens, x.device)
        for block in self.blocks:
            kept = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
            h = checkpoint(block, h, mask, frame, use_reentrant=False) if kept else block(h, mask, frame)
        return self.leave(self.norm(h[:, -1]), frame)  # type: ignore[no-any-return]

    def footprint(self, rows: int, size: tuple[int, ...]) -> Work:
        """See `Denoiser.footprint`."""
        c, item = self.config, self.dtype.itemsize
        per_block = 24 * c.tokens * c.width**2 + 4 * c.tokens**2 * c.width
        return Work(rows * c.tokens * (12 * c.width + c.heads * c.tokens) * item, rows * c.layers * per_block)

    def _text(self, context: PriorContext) -> Tensor | None:
        """(B, length + 1, width): the slots that the network has."""
        frame, found = Frame(self.query, self.query, context, None), list[Tensor]()
        tokens, vector = context.signals.get("context"), context.signals.get("vector")
        if self.context is not None and isinstance(tokens, Tokens):
            found.append(self.context(_filled(tokens.value, self.config.length).to(self.query.dtype), frame))
        if self.vector is not None and isinstance(vector, Vector):
            found.append(self.vector(vector.value.to(self.query.dtype), frame)[:, None])
        return torch.cat(found, dim=1) if found else None

    def _mask(self, signals: Mapping[str, Signal]) -> Tensor | None:
        """(B, 1, L, L): causal, without the text's padding; a token always attends to itself, so that no row is empty
        (what padding computes is not read by others)."""
        tokens = signals.get("context")
        if self.context is None or not isinstance(tokens, Tokens):
            return None
        length, rows = self.config.length, len(tokens.value)
        real = tokens.mask
        if real is None:
            real = torch.ones(tokens.value.shape[:2], dtype=torch.bool, device=tokens.value.device)
        real = F.pad(real, (0, length - real.shape[1]), value=False)
        real = F.pad(real, (0, self.config.tokens - length), value=True)
        causal = _causal(self.config.tokens, real.device)
        itself = torch.eye(self.config.tokens, dtype=torch.bool, device=real.device)
        return (causal & real.view(rows, 1, 1, -1)) | itself


def _causal(length: int, device: torch.device) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def _filled(tokens: Tensor, length: int) -> Tensor:
    """(B, L, D) -> (B, length, D): the places after a shorter text are padding.

    Raises:
        InputError: `token-count`.
    """
    if tokens.shape[1] > length:
        what = f"{tokens.shape[1]} tokens of text, and the prior has places for {length}"
        raise InputError("token-count", what, where="context", fits=f"a conditioner of {length} tokens or fewer")
    return F.pad(tokens, (0, 0, 0, length - tokens.shape[1]))


def _slots(config: PriorConfig) -> dict[str, Slot]:
    slots = {}
    if config.context_dim is not None:
        slots["context"] = Slot("tokens", config.context_dim, required=True)
    if config.vector_dim is not None:
        slots["vector"] = Slot("vector", config.vector_dim, required=True)
    return slots
