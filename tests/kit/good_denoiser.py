"""A denoiser of one's own, written against `ldmkit` alone: a transformer block on patches of 2x2 latent cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldmkit import CompositionError, Context, Denoiser, Example, Frame, Gate, InputError, Port, Signal, Slot, Value


class PatchConfig(Value):
    """Args:
    channels: of the latents.
    width: of the tokens.
    classes: rows of the table that the class is looked up in.
    """

    channels: int = 4
    width: int = 8
    classes: int = 3


@dataclass
class PatchContext(Context):
    """The class's row (B, width), the tokens' keys and values (B, L, 2 width) or None, and the plane or None."""

    row: Tensor | None = None
    kv: Tensor | None = None
    plane: Tensor | None = None


class Block(nn.Module):
    """Attention of the patches to themselves and to the tokens, each with its port."""

    def __init__(self, width: int):
        super().__init__()
        self.own = nn.Linear(width, 3 * width)
        self.query = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.self_port, self.cross_port, self.out_port = Port(), Port(), Port()

    def forward(self, x: Tensor, kv: Tensor | None, mask: Tensor | None, frame: Frame) -> Tensor:
        q, k, v = self.own(x).chunk(3, -1)
        x = self.self_port(x + self.attend(q, k, v, None), frame)
        if kv is None:
            return x
        q = self.query(x)
        y = self.attend(q, *kv.chunk(2, -1), mask)
        frame.scratch["query"] = q[:, None]
        y = self.cross_port(y, frame)
        frame.scratch["input"] = y
        return x + self.out_port(self.out(y), frame)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        if mask is None:
            return scores.softmax(-1) @ v
        return (scores.masked_fill(~mask[:, None], -1e4).softmax(-1) * mask[:, None]) @ v


class PatchNet(Denoiser):
    """F of latents with even sides. Slots: `kind` (a class, required), `context` (tokens), `plane`."""

    Config = PatchConfig
    config: PatchConfig
    examples = (Example(), Example({"channels": 2, "width": 4}))
    smallest = 2
    regions = (Block,)

    def __init__(self, config: PatchConfig | None = None):
        super().__init__(config)
        self.channels, width = self.config.channels, self.config.width
        self.slots = {
            "kind": Slot("vector", 1, required=True),
            "context": Slot("tokens", 5, "length"),
            "plane": Slot("plane", 2, "feature"),
        }
        self.table = nn.Embedding(self.config.classes, width)
        self.tokens = nn.Linear(5, 2 * width)
        self.hint = nn.Conv2d(2, width, 2, 2)
        self.embed = nn.Conv2d(self.channels, width, 2, 2)
        self.time = nn.Linear(2, width)
        self.block = Block(width)
        self.back = nn.ConvTranspose2d(width, self.channels, 2, 2)
        self.input_port, self.mid_port, self.gate = Port(), Port(), Gate()
        self.ports = {
            "input": self.input_port,
            "deep.0": self.gate,
            "self.block": self.block.self_port,
            "cross.block": self.block.cross_port,
            "linear.block.out": self.block.out_port,
            "mid": self.mid_port,
        }

    def prepare(self, signals: Mapping[str, Signal]) -> PatchContext:
        if "kind" not in signals:
            raise CompositionError("missing-signal", "no 'kind' condition", fits="a class")
        context = PatchContext(signals)
        given: dict[str, Any] = dict(signals)
        context.row = self.table(given["kind"].value[:, 0].long())
        if "context" in given:
            context.kv = self.tokens(given["context"].value)
        if "plane" in given:
            context.plane = self.hint(given["plane"].value)
        return context

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        assert isinstance(context, PatchContext) and context.row is not None
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise InputError("size-multiple", f"latents {tuple(x.shape[2:])}", where="size", fits="even sides")
        frame = Frame(x, t, context, sigma)
        h = self.embed(self.input_port(x, frame))
        if context.plane is not None:
            h = h + context.plane
        code = torch.stack([(t / 300).sin(), (t / 300).cos()], 1).to(x.dtype)
        h = h + (self.time(code) + context.row)[:, :, None, None]
        return self.back(self.mid_port(self.deep(h, context, frame), frame))

    def deep(self, h: Tensor, context: PatchContext, frame: Frame) -> Tensor:
        return self.gate.around(lambda: self.attended(h, context, frame), frame)

    def attended(self, h: Tensor, context: PatchContext, frame: Frame) -> Tensor:
        tokens: Any = context.signals.get("context")
        mask = None if tokens is None else tokens.mask
        patches = self.block(h.flatten(2).transpose(1, 2), context.kv, mask, frame)
        return patches.transpose(1, 2).unflatten(2, h.shape[2:])
