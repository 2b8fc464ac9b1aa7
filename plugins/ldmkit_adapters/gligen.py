"""GLIGEN (Li et al. 2023, arXiv:2301.07093): boxes with phrases, read by gated self-attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from ldmkit_denoisers.attention import GEGLU, Attention, KeysValues, TransformerBlock
from ldmkit_denoisers.config import SMALL
from pydantic import Field
from torch import Tensor, nn

from ldmkit import (
    Adapter,
    CompositionError,
    Context,
    Denoiser,
    Example,
    Frame,
    InputError,
    Run,
    Slot,
    Tap,
    Tokens,
    Value,
)
from ldmkit.bounds import MAX_LAYERS, Heads, Length, SignedScale, Width
from ldmkit_adapters.windows import Window

_HOST = {**SMALL, "attention": ("none", "cross"), "context_dim": 6}


class GatedLayer(Value):
    """Where one gated attention is added.

    Args:
        port: `block.<path>` of a transformer block.
        width: channels of the residual stream there.
        heads: they divide the width.
    """

    port: str
    width: Width
    heads: Heads


class GLIGENConfig(Window):
    """Gated attentions, and what makes tokens of boxes.

    Args:
        layers: where the gated attentions are.
        phrase_dim: width of a phrase's embedding.
        frequencies: of the box code, which has 8 numbers for each.
        hidden: width of the MLP that joins phrase and box.
        dim: width of the tokens of objects.
        objects: slots for objects; what is not filled holds the learned null.
        scale: factor of both gates; 0 is the network without it.
        start, end: the part of the run, in fractions of its steps, in which it acts (scheduled sampling): by the paper
            the first 0.3.
    """

    layers: tuple[GatedLayer, ...] = Field(min_length=1, max_length=MAX_LAYERS)
    phrase_dim: Width = 768
    frequencies: int = Field(default=8, gt=0, le=16)
    hidden: Width = 512
    dim: Width = 768
    objects: Length = 30
    scale: SignedScale = 1.0
    end: float = Field(0.3, ge=0, le=1)


class ObjectNet(nn.Module):
    """Phrases and box codes -> tokens of objects, with learned nulls in the slots that hold none."""

    def __init__(self, config: GLIGENConfig):
        super().__init__()
        code = 8 * config.frequencies
        self.null_phrase = nn.Parameter(torch.zeros(config.phrase_dim))
        self.null_code = nn.Parameter(torch.zeros(code))
        self.mlp = nn.Sequential(
            nn.Linear(config.phrase_dim + code, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, config.dim),
        )

    def forward(self, objects: Tensor) -> Tensor:
        """(B, L, phrase_dim + code + 1), of which the last is 1 for an object and 0 for none -> (B, L, dim)."""
        null = torch.cat([self.null_phrase, self.null_code])
        said, real = objects.to(null.dtype).split((len(null), 1), dim=-1)
        return self.mlp(said * real + (1 - real) * null)  # type: ignore[no-any-return]


class GatedAttention(nn.Module):
    """x + s tanh(a) SA([x; objects]) + s tanh(b) FF(.), each after a LayerNorm; a and b are 0 at first (equation 7)."""

    def __init__(self, width: int, heads: int, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, width)
        self.attn = Attention(width, heads)
        self.ff = GEGLU(width)
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.gate_attn, self.gate_ff = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def keys_values(self, objects: Tensor, frame: Frame) -> KeysValues:
        """Keys and values of the objects' tokens (B, L, dim), which are the same in every step."""
        return self.attn.keys_values(self.norm_1(self.linear(objects)), frame)

    def forward(self, x: Tensor, objects: KeysValues, scale: float, frame: Frame) -> Tensor:
        """x (B, N, width), keys and values of B rows or of one -> the same shape."""
        y = self.norm_1(x)
        own = self.attn.keys_values(y, frame)
        keys, values = (torch.cat([a, b.expand(len(a), -1, -1, -1)], dim=2) for a, b in zip(own, objects, strict=True))
        x = x + scale * self.gate_attn.tanh() * self.attn(y, frame, (keys, values))
        return x + scale * self.gate_ff.tanh() * self.ff(self.norm_2(x), frame)


@dataclass
class GLIGENState:
    """What a run keeps: the adapter, port -> keys and values of the objects there, and the run."""

    adapter: GLIGEN
    objects: Mapping[str, KeysValues]
    run: Run | None = None

    def acts(self, sigma: float | None) -> bool:
        """Whether the step at `sigma` is in [start, end]; always where run or sigma are unknown."""
        config = self.adapter.config
        return config.scale != 0 and (self.run is None or sigma is None or config.holds(self.run, sigma))


@dataclass(frozen=True)
class _Gated:
    """Tap at `block.<path>`: the gated attention there."""

    name: str
    port: str

    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        state = frame.context.adapters.get(self.name)
        objects = None if state is None else state.objects.get(self.port)
        if objects is None or not state.acts(frame.sigma):
            return value
        layer = state.adapter.at[self.port]
        seen = value.to(layer.linear.weight.dtype)
        return layer(seen, objects, state.adapter.config.scale, frame).to(value.dtype)  # type: ignore[no-any-return]


class GLIGEN(Adapter):
    """Reads boxes with phrases, and adds a gated self-attention between the two attentions of transformer blocks.

    Slot `objects`: tokens (B, L, phrase_dim + 8 * frequencies + 1), a phrase's embedding, a box's code, and 1; tokens
    of zeros are no objects. They are filled up to `objects` with learned nulls. Rows without boxes hold nulls only, as
    the published networks were trained: their attention still acts. A scale of 0 is the network without it.

    State-dict names: net.null_phrase, net.null_code, net.mlp.<i>, layers.<i>.{linear, attn, ff, norm_1, norm_2,
    gate_attn, gate_ff}, in the order of `layers`.
    """

    Config = GLIGENConfig
    config: GLIGENConfig
    examples = (
        Example(
            {
                "layers": [{"port": "block.mid.attn.blocks.0", "width": 16, "heads": 2}],
                "phrase_dim": 5, "frequencies": 2, "hidden": 8, "dim": 6, "objects": 8, "end": 1.0,
            },
            denoiser={"type": "unet", "config": _HOST},
        ),
    )  # fmt: skip

    def __init__(self, config: GLIGENConfig | None = None):
        super().__init__(config)
        c = self.config
        self.net = ObjectNet(c)
        self.layers = nn.ModuleList(GatedAttention(one.width, one.heads, c.dim) for one in c.layers)
        self.at = {one.port: self.layers[i] for i, one in enumerate(c.layers)}
        self.slots = {"objects": Slot("tokens", c.phrase_dim + 8 * c.frequencies + 1, required=True)}

    @classmethod
    def from_denoiser(cls, denoiser: Denoiser, **options: Any) -> GLIGEN:
        """A new one for all transformer blocks of a U-Net; it changes nothing until it is trained.

        Args:
            options: fields of `GLIGENConfig`.

        Raises:
            CompositionError: `no-blocks`: the denoiser has no transformer blocks.
        """
        layers = gated_layers(denoiser)
        if not layers:
            what = f"{type(denoiser).__name__} has no transformer blocks"
            raise CompositionError("no-blocks", what, fits="a U-Net with cross-attention")
        return cls(GLIGENConfig.of({"layers": layers, **options})).to(denoiser.device, denoiser.dtype)

    def taps(self, name: str) -> Mapping[str, Tap]:
        """At the `block` port of every layer."""
        return {port: _Gated(name, port) for port in self.at}

    def adds(self, name: str) -> Mapping[str, int]:
        return {one.port: one.width for one in self.config.layers}

    def prepare(self, context: Context, name: str) -> GLIGENState:
        """Make the objects' keys and values, once per run.

        Raises:
            CompositionError: `wrong-signal`: the slot holds no tokens.
            InputError: `too-many-boxes`.
        """
        objects = self._objects(context, name)
        frame = Frame(objects, objects.new_zeros(len(objects)), context)
        found = {port: layer.keys_values(objects, frame) for port, layer in self.at.items()}  # type: ignore[operator]
        return GLIGENState(self, found, context.run)

    def drops(self, slot: str) -> bool:
        """True: guidance's other side holds nulls, as in the published pipelines."""
        return True

    def idle(self, run: Run) -> str | None:
        """See `Adapter.idle`."""
        return "its scale is 0" if self.config.scale == 0 else self.config.outside(run)

    def _objects(self, context: Context, name: str) -> Tensor:
        """Tokens of all slots (B, objects, dim); of one row where no boxes are given."""
        slots, tokens = self.config.objects, context.signals.get(f"{name}.objects")
        if tokens is None:
            tokens = Tokens(self.net.null_code.new_zeros(1, 1, self.slots["objects"].dim))
        if not isinstance(tokens, Tokens):
            raise CompositionError("wrong-signal", "the objects are no tokens", fits=f"{self.slots['objects']}")
        value, present = tokens.value, context.present.get(f"{name}.objects")
        if value.shape[1] > slots:
            raise InputError("too-many-boxes", f"{value.shape[1]} objects", where="objects", fits=f"at most {slots}")
        if tokens.mask is not None:
            value = value * tokens.mask[..., None]
        if present is not None:
            value = value * present[:, None, None]
        return self.net(F.pad(value, (0, 0, 0, slots - value.shape[1])))  # type: ignore[no-any-return]


def gated_layers(denoiser: nn.Module) -> list[dict[str, Any]]:
    """`GLIGENConfig.layers` for all transformer blocks of a U-Net, in the order of the network."""
    return [
        {"port": f"block.{path}", "width": block.norm_1.normalized_shape[0], "heads": block.self_attn.heads}
        for path, block in denoiser.named_modules()
        if isinstance(block, TransformerBlock)
    ]
