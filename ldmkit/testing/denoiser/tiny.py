"""The kit's denoiser, on which adapters are checked: a minimal network with a port of every family.

It is also a short example of everything that a denoiser has to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.nn import PortedLinear
from ldmkit.contracts.ports import Gate, Port
from ldmkit.contracts.signals import Signal, Slot, Tokens, Vector
from ldmkit.contracts.step import Context, Frame
from ldmkit.contracts.value import Value
from ldmkit.errors import CompositionError


class TinyConfig(Value):
    """Args:
    channels: latent channels.
    width: channels of full-size feature maps, doubled at half the size; a multiple of 2.
    context_dim: width of the tokens that it attends to.
    vector_dim: width of the vector that is added to the time embedding.
    """

    channels: int = 3
    width: int = 8
    context_dim: int = 6
    vector_dim: int = 4


@dataclass
class TinyContext(Context):
    """Keys, values and mask of the tokens, and the embedded vector; None if the condition was left out."""

    keys: Tensor | None = None
    values: Tensor | None = None
    mask: Tensor | None = None
    vector: Tensor | None = None


class Projection(PortedLinear):
    """A linear layer with a port and without a bias."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, bias=False)


class TinyDenoiser(Denoiser):
    """F(x, t, context): x (B,channels,h,w), t (B,) in training steps; any h and w. One level down, and up again.

    Slots, both optional: `context` (tokens, 6 wide), `vector` (4 wide). Ports: `input`; `skip.0` (8 channels) and
    `skip.1` (16 channels at half the size), which the way up reads; `down.0` and `down.0.resample`, where these two are
    made; `deep.0`, a gate around all that is at half the size; `mid`; `self.mid` after the self-attention, `block.mid`
    before the attention to tokens, `cross.mid`, and `linear.mid.to_{q,k,v,out}` of that attention.
    """

    Config = TinyConfig
    config: TinyConfig
    slots: Mapping[str, Slot]

    def __init__(self, config: TinyConfig | None = None):
        super().__init__(config)
        c, width = self.config, self.config.width
        self.channels = c.channels
        self.slots = {"context": Slot("tokens", c.context_dim, "length"), "vector": Slot("vector", c.vector_dim)}
        deep = 2 * width
        self.conv_in = nn.Conv2d(c.channels, width, 3, padding=1)
        self.time, self.vector = nn.Linear(width, deep), nn.Linear(c.vector_dim, deep)
        self.down = nn.Conv2d(width, deep, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, deep)
        self.self_qkv = nn.Linear(deep, 3 * deep)
        self.to_q, self.to_out = Projection(deep, deep), Projection(deep, deep)
        self.to_k, self.to_v = Projection(c.context_dim, deep), Projection(c.context_dim, deep)
        self.join = nn.Conv2d(2 * deep, deep, 1)
        self.conv_out = nn.Conv2d(deep + width, c.channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        self.inputs, self.mid, self.after_self, self.between, self.cross = (Port() for _ in range(5))
        self.level, self.resampled, self.deep = Port(), Port(), Gate()
        skips = [Port(), Port()]
        self.skips = nn.ModuleList(skips)
        self.ports = {
            "input": self.inputs,
            "down.0": self.level,
            "down.0.resample": self.resampled,
            "deep.0": self.deep,
            "skip.0": skips[0],
            "skip.1": skips[1],
            "mid": self.mid,
            "self.mid": self.after_self,
            "block.mid": self.between,
            "cross.mid": self.cross,
            **{f"linear.mid.to_{key}": getattr(self, f"to_{key}").port for key in ("q", "k", "v", "out")},
        }

    def prepare(self, signals: Mapping[str, Signal]) -> TinyContext:
        """Project the tokens to keys and values, and embed the vector.

        Raises:
            CompositionError: `kind-mismatch`.
        """
        context = TinyContext(signals)
        tokens, vector = signals.get("context"), signals.get("vector")
        if tokens is not None:
            if not isinstance(tokens, Tokens):
                raise CompositionError("kind-mismatch", f"slot 'context' got {type(tokens).__name__}")
            self._project(tokens, context)
            context.mask = None if tokens.mask is None else tokens.mask[:, None, None, :]
        if vector is not None:
            if not isinstance(vector, Vector):
                raise CompositionError("kind-mismatch", f"slot 'vector' got {type(vector).__name__}")
            context.vector = self.vector(vector.value)
        return context

    def adapted(self, context: Context) -> Context:
        """Recompute keys and values if taps act on them, now that the taps find their adapters' states."""
        tokens = context.signals.get("context")
        if (
            isinstance(context, TinyContext)
            and isinstance(tokens, Tokens)
            and (self.to_k.port.taps or self.to_v.port.taps)
        ):
            self._project(tokens, context)
        return context

    def _project(self, tokens: Tokens, context: TinyContext) -> None:
        frame = Frame(tokens.value, tokens.value.new_zeros(tokens.value.shape[0]), context)
        context.keys = _heads(self.to_k(tokens.value, frame))
        context.values = _heads(self.to_v(tokens.value, frame))

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        """Compute F(x, t, context).

        Raises:
            CompositionError: `foreign-context`.
        """
        if not isinstance(context, TinyContext):
            raise CompositionError("foreign-context", "the context was not prepared by this denoiser")
        frame = Frame(x, t, context, sigma)
        emb = self.time(_code(t, self.config.width).to(x.dtype))
        if context.vector is not None:
            emb = emb + context.vector
        shallow = self.level(self.conv_in(self.inputs(x, frame)), frame)

        def half_size() -> Tensor:
            deep = self.resampled(self.down(shallow) + emb[:, :, None, None], frame)
            h = self.mid(self._middle(deep, context, frame), frame)
            h = self.join(F.silu(torch.cat([h, self.skips[1](deep, frame)], 1)))
            return F.interpolate(h, size=shallow.shape[2:], mode="nearest")

        h = self.deep.around(half_size, frame)
        out: Tensor = self.conv_out(F.silu(torch.cat([h, self.skips[0](shallow, frame)], 1)))
        return out

    def _middle(self, h: Tensor, context: TinyContext, frame: Frame) -> Tensor:
        b, c, rows, columns = h.shape
        x = self.norm(h).flatten(2).transpose(1, 2)
        q, k, v = (_heads(part) for part in self.self_qkv(x).chunk(3, -1))
        x = self.after_self(x + _joined(F.scaled_dot_product_attention(q, k, v)), frame)
        x = self.between(x, frame)
        if context.keys is not None and context.values is not None:
            q = _heads(self.to_q(x, frame))
            y = _joined(_attend(q, context.keys, context.values, context.mask))
            frame.scratch["query"] = q
            x = x + self.to_out(self.cross(y, frame), frame)
        out: Tensor = h + x.transpose(1, 2).view(b, c, rows, columns)
        return out


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention that returns zeros for rows without any token."""
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v)
    scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
    weights: Tensor = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    joined: Tensor = (weights * mask) @ v
    return joined


def _heads(x: Tensor) -> Tensor:
    """(B, L, C) -> (B, 2, L, C / 2)."""
    b, length, c = x.shape
    return x.view(b, length, 2, c // 2).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _code(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding (B, width) of times, float32."""
    steps = torch.arange(width // 2, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-steps * (math.log(10000.0) / (width // 2)))
    return torch.cat([angles.sin(), angles.cos()], 1)
