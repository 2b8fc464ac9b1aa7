"""ControlNet Union (xinsir's ControlNet++): one ControlNet for several types of hints, one or several at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from ldmkit_denoisers.conditions import Projected
from ldmkit_denoisers.embeddings import EmbeddingMLP, frequencies, sinusoidal
from ldmkit_denoisers.ported import zeroed
from pydantic import Field, model_validator
from torch import Tensor, nn

from ldmkit import CompositionError, Context, Example, InputError, Plane, Run, Slot, SpecError, suggest
from ldmkit.bounds import SignedScale, Width
from ldmkit_adapters.controlnet import CROSS, OPTIONS, ControlNet, ControlNetConfig, ControlState

TYPES = ("openpose", "depth", "scribble", "canny", "normal", "segmentation", "tile", "repaint")
"""Of the published weights, in their order; the first has six of them, ProMax all."""


class UnionConfig(ControlNetConfig):
    """A ControlNet for several types of hints.

    Args:
        types: names of the types, which are the adapter's slots. Canny stands for lines of any kind, scribble for soft
            edges.
        type_dim: width of the code of each type, of which it is told whether it is given.
        layers: residual blocks that a hint's mean passes.
        scale: of the residuals where one type is given, else of every hint.
        scales: further factors by type; one of 0 is the same as no hint.
        order: the published ones read RGB.
    """

    types: tuple[str, ...] = Field(TYPES, min_length=1, max_length=64)
    type_dim: Width = 256
    layers: int = Field(1, ge=0, le=64)
    scales: Mapping[str, SignedScale] = Field(default_factory=dict)
    order: Literal["rgb"] = "rgb"

    @model_validator(mode="after")
    def _known(self) -> UnionConfig:
        if len(set(self.types)) < len(self.types) or any("." in name or not name for name in self.types):
            raise SpecError("invalid", f"types are {self.types}", where="types", fits="different names without a dot")
        for name in self.scales:
            if name not in self.types:
                what = f"there is no type {name!r} of hint"
                raise SpecError("invalid", what, where=f"scales.{name}", fits=suggest(name, self.types))
        return self

    def strength(self, name: str) -> float:
        """The factor of a type."""
        return self.scale * self.scales.get(name, 1.0)


class MeanBlock(nn.Module):
    """What a transformer block does to a single token: its value, and a two-layer network with a fast GELU.

    The published code lets the pictures of a batch attend to one another, and nothing else; for one picture, whose rows
    have the same hints with and without its text, that is attention to itself.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width) -> the same."""
        x = x + self.out(self.value(self.norm_1(x)))
        h = self.inner(self.norm_2(x))
        return x + self.outer(h * torch.sigmoid(1.702 * h))  # type: ignore[no-any-return]


class ControlNetUnion(ControlNet):
    """A ControlNet with a slot for every type of hint; those that are given in a row act there together.

    Each slot is a plane with `hint_channels` at picture resolution, values in [0, 1]. A row with one type has residuals
    times its scale; in a row with several each hint is scaled, and the residuals are not. It stays out of rows without
    any. State-dict names: those of `ControlNet`, type_embedding, blocks.<i>, mean_out, type_embed.
    """

    Config = UnionConfig
    config: UnionConfig  # type: ignore[assignment]
    examples = (
        Example(
            {"unet": CROSS, "hint_channels": 2, "hint_widths": (4, 4), "types": ("canny", "depth"), "type_dim": 4},
            denoiser={"type": "unet", "config": CROSS},
            plane_factor=2,
        ),
        Example(
            {"unet": CROSS, "hint_channels": 2, "hint_widths": (4,), "types": ("canny", "depth"), "type_dim": 4,
             "scale": 0.5, "scales": {"depth": 0.7}, "layers": 2},
            denoiser={"type": "unet", "config": CROSS},
        ),
        Example(  # see `ControlNet.examples`
            {"unet": CROSS, "hint_channels": 2, "hint_widths": (4,), "types": ("canny",), "type_dim": 4,
             "only_mid": True},
            trained=False,
            denoiser={"type": "unet", "config": CROSS},
        ),
    )  # fmt: skip
    options: ClassVar[tuple[str, ...]] = (*OPTIONS, "scales")

    def __init__(self, config: UnionConfig | None = None):
        super().__init__(config)
        c, width = self.config, self.config.unet.widths[0]
        self.type_embedding = nn.Parameter(nn.init.normal_(torch.empty(len(c.types), width), std=width**0.5))
        self.blocks = nn.ModuleList(MeanBlock(width) for _ in range(c.layers))
        self.mean_out = zeroed(nn.Linear(width, width))
        self.type_embed = EmbeddingMLP(len(c.types) * c.type_dim, c.unet.embedding)
        self.slots = {name: Slot("plane", c.hint_channels) for name in c.types}

    def idle(self, run: Run) -> str | None:
        """See `Adapter.idle`."""
        if all(self.config.strength(name) == 0 for name in self.config.types):
            return "its scale is 0"
        return self.config.outside(run)

    def prepare(self, context: Context, name: str) -> ControlState | None:
        """Encode the hints, join them and project the conditions, once per run; None without a hint.

        Raises:
            CompositionError: a hint is not a plane, or a condition of the network is missing.
            InputError: `hint-size`: hints differ in size.
        """
        hints = self._hints(context, name)
        if not hints:
            return None
        first = next(iter(hints.values()))
        given = self._given(hints, context, name, first)
        several = given.sum(dim=1, keepdim=True) > 1
        strengths = given.new_tensor([self.config.strength(kind) for kind in self.config.types])
        scales = torch.where(several, strengths, 1.0) * given
        joined = None
        for kind, hint in hints.items():
            index = self.config.types.index(kind)
            part = self._joined(self.hint(hint), index, scales[:, index, None], given[:, index, None])
            joined = part if joined is None else joined + part
        rows = torch.where(several[:, 0], 1.0, (given * strengths).sum(dim=1))
        projected = self.project(context.signals, context)
        return self.state(context, joined, rows.view(-1, 1, 1, 1), self._typed(projected, given))

    @property
    def strength(self) -> float:
        """What all residuals are multiplied by, beside `ControlState.rows`, which holds the scales."""
        return 1.0

    def _hints(self, context: Context, name: str) -> dict[str, Tensor]:
        """The hints that are given and have an effect, by type."""
        found: dict[str, Tensor] = {}
        for kind in self.config.types:
            hint = context.signals.get(f"{name}.{kind}")
            if hint is None or self.config.strength(kind) == 0:
                continue
            if not isinstance(hint, Plane) or hint.value.shape[1] != self.config.hint_channels:
                raise CompositionError("wrong-signal", "the hint does not fit", fits=f"{self.slots[kind]}")
            found[kind] = hint.value.to(self.dtype)
        if len(sizes := {tuple(hint.shape[2:]) for hint in found.values()}) > 1:
            what = f"hints of several sizes: {', '.join(f'{h} x {w}' for h, w in sorted(sizes))}"
            raise InputError("hint-size", what, where=name, fits="one size")
        return found

    def _given(self, hints: Mapping[str, Tensor], context: Context, name: str, like: Tensor) -> Tensor:
        """(B, types), 1 where a row has a hint of a type, else 0."""
        columns = []
        for kind in self.config.types:
            present = context.present.get(f"{name}.{kind}")
            column = like.new_full((like.shape[0],), float(kind in hints))
            columns.append(column if present is None else column * present.to(column))
        return torch.stack(columns, dim=1)

    def _joined(self, encoded: Tensor, index: int, scale: Tensor, given: Tensor) -> Tensor:
        """What one hint adds to the network's first map: itself, and what its mean gives; scale, given (B, 1)."""
        mean = (encoded.mean(dim=(2, 3)) + self.type_embedding[index]) * scale
        for block in self.blocks:
            mean = block(mean)
        shift = self.mean_out(mean) * scale
        return (encoded * scale[..., None, None] + shift[..., None, None]) * given[..., None, None]

    def _typed(self, projected: Projected, given: Tensor) -> Projected:
        """The conditions with the types that are given, a code each, added to the vector."""
        c = self.config
        freqs = frequencies(c.type_dim, c.unet.freq_shift, given.device)
        code = sinusoidal(given.flatten(), freqs, c.type_dim, c.unet.cos_first).view(given.shape[0], -1)
        typed = self.type_embed(code.to(self.dtype))
        return replace(projected, vector=typed if projected.vector is None else typed + projected.vector)
