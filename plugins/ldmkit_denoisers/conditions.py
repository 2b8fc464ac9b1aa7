"""The conditions of the U-Net: its slots, and what is computed of them once per run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit import CompositionError, Context, Frame, Plane, PortedLinear, Signal, Slot, Tokens, Vector, ports_in
from ldmkit_denoisers.attention import ContextReader, KeysValues, TransformerBlock
from ldmkit_denoisers.config import UNetConfig, down_levels, mid_level
from ldmkit_denoisers.embeddings import (
    ClassTable,
    EmbeddingMLP,
    NormedProjection,
    TimeLikeMLP,
    TokenPool,
    frequencies,
)
from ldmkit_denoisers.joint import JointAttention2d
from ldmkit_denoisers.ported import apply_layer


@dataclass
class Projected:
    """Projections of the conditions, computed once per run.

    `kv` are keys and values of every attention that reads the context in the order of the network, `mask` (B,1,1,L)
    bool or None, `vector` (B, embedding) what is added to the time embedding or None, `freqs` the timestep code's
    frequencies.
    """

    kv: tuple[KeysValues, ...]
    mask: Tensor | None
    vector: Tensor | None
    freqs: Tensor


@dataclass
class UNetContext(Context):
    """The context of a U-Net: its own projections, and the plane (B, C, h, w) that is concatenated to x.

    `plan` is the execution plan that has used this context, for what a plan checks or computes once per run.
    """

    projected: Projected | None = None
    plane: Tensor | None = None
    plan: Any = None


class Conditioned(nn.Module):
    """Mixin for a part with a U-Net's conditions; `build_conditions` makes its modules, under the U-Net's names."""

    unet: UNetConfig
    conv_in: nn.Module

    def build_conditions(self, config: UNetConfig) -> None:
        """Make the modules: vector_embed, context_proj, context_norm, context_pool, image_tokens, image_time; None if
        not needed."""
        wide, source, image = config.embedding, config.context_source or config.context_dim or 0, config.image_dim or 0
        self.vector_embed = _vector_embed(config)
        self.context_proj = PortedLinear(source, config.context_dim or 0) if config.context_source else None
        self.context_norm = nn.LayerNorm(config.context_dim or 0) if config.context_norm else None
        self.context_pool = TokenPool(source, wide, config.pool_heads) if config.pool_heads else None
        tokens, normed = config.image_tokens, config.image_norm
        self.image_tokens = NormedProjection(image, config.context_dim or 0, tokens, normed) if tokens else None
        self.image_time = NormedProjection(image, wide, None, normed) if config.image_time else None

    def project(self, signals: Mapping[str, Signal], context: Context) -> Projected:
        """Keys, values and vector of the conditions.

        Raises:
            CompositionError: a required condition is missing.
        """
        config = self.unet
        tokens = signal_of(signals, "context", Tokens) if reads_tokens(config) else None
        vector = signal_of(signals, "vector", Vector) if config.vector != "none" else None
        image = signal_of(signals, "image", Vector) if config.image_dim is not None else None
        added = [] if vector is None else [self._embed_vector(vector.value, context)]
        kv: tuple[KeysValues, ...] = ()
        mask = None
        if tokens is not None or image is not None:
            source, mask = self._context(tokens, image, context, added)
            if source is not None:
                frame = _frame(source, context)
                pairs = [pair for block in self.readers() for pair in block.context_pairs(source, mask, frame)]
                kv = tuple(_contiguous(pair) for pair in pairs)
        return Projected(
            kv,
            None if mask is None else mask[:, None, None, :],
            sum(added[1:], start=added[0]) if added else None,
            frequencies(config.code, config.freq_shift, self.conv_in.weight.device),
        )

    def readers(self) -> list[ContextReader]:
        """The blocks that read the context, in the order of their keys and values."""
        found: list[Any] = [m for m in self.modules() if isinstance(m, (TransformerBlock, JointAttention2d))]
        return sorted(found, key=lambda m: m.index)

    def projects_through_taps(self) -> bool:
        """Whether a layer of what is computed once per run is tapped."""
        layers = [layer for block in self.readers() for layer in block.context_layers()]
        made = (self.vector_embed, self.context_proj, self.context_pool, self.image_tokens, self.image_time)
        return any(port.taps for module in (*layers, *made) if module is not None for port in ports_in(module))

    def _context(
        self, tokens: Tokens | None, image: Vector | None, context: Context, added: list[Tensor]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The tokens that attentions read, with their mask; what they add to the time embedding goes to `added`."""
        dtype, first = self.conv_in.weight.dtype, None
        if image is not None:
            value = image.value.to(dtype)
            if self.image_time is not None:
                added.append(self.image_time(value, _frame(value, context)))
            if self.image_tokens is not None:
                first = self.image_tokens(value, _frame(value, context))
        if tokens is None:
            return first, None
        value = tokens.value.to(dtype)
        if self.context_pool is not None:
            added.append(self.context_pool(value, tokens.mask, _frame(value, context)))
        if self.context_proj is not None:
            value = apply_layer(self.context_proj, value, _frame(value, context))
        if self.context_norm is not None:
            value = self.context_norm(value)
        mask = tokens.mask
        if first is not None:
            value = torch.cat([first, value], dim=1)
            mask = None if mask is None else F.pad(mask, (first.shape[1], 0), value=True)
        return value, mask

    def _embed_vector(self, value: Tensor, context: Context) -> Tensor:
        dtype, embed = self.conv_in.weight.dtype, self.vector_embed
        if embed is None:
            return value.to(dtype)
        if isinstance(embed, ClassTable):
            return embed(value)
        return embed(value if isinstance(embed, TimeLikeMLP) else value.to(dtype), _frame(value, context))


def signal_of(signals: Mapping[str, Signal], name: str, kind: Callable[..., Any]) -> Any:
    """The signal of a slot.

    Raises:
        CompositionError: `missing-signal`, `kind-mismatch`.
    """
    signal = signals.get(name)
    if signal is None:
        have = ", ".join(signals) or "none"
        raise CompositionError("missing-signal", f"no {name!r} condition", fits=f"slots filled: {have}")
    if type(signal) is not kind:
        raise CompositionError("kind-mismatch", f"slot {name!r} got {type(signal).__name__}")
    return signal


def takes_context(config: UNetConfig) -> bool:
    """Whether the network has attention to a context."""
    kinds = {plan.attention for plan in (*down_levels(config), mid_level(config))}
    return config.context_dim is not None and not kinds.isdisjoint(("cross", "joint"))


def reads_tokens(config: UNetConfig) -> bool:
    """Whether the network needs tokens: for its context, unless all of that is made of a picture's embedding, or for
    its pool."""
    given = config.image_tokens is None or config.context_source is not None
    return (takes_context(config) and given) or config.pool_heads is not None


def unet_slots(config: UNetConfig) -> dict[str, Slot]:
    """The slots of a U-Net. All are required: the published networks have no defaults."""
    slots: dict[str, Slot] = {}
    if reads_tokens(config):
        wide = config.context_source or config.context_dim or 0
        slots["context"] = Slot("tokens", wide, config.context_join, required=True)
    if (dim := config.vector_width) is not None:
        slots["vector"] = Slot("vector", dim, "only" if dim == 1 else "feature", required=True)
    if config.image_dim is not None:
        slots["image"] = Slot("vector", config.image_dim, "only", required=True)
    if config.plane_channels:
        slots["plane"] = Slot("plane", config.plane_channels, "feature", required=True)
    return slots


def checked_plane(config: UNetConfig, signals: Mapping[str, Signal]) -> Tensor | None:
    """The plane that a network concatenates to x, or None.

    Raises:
        CompositionError: it is missing or has the wrong number of channels.
    """
    if not config.plane_channels:
        return None
    plane = signals.get("plane")
    if not isinstance(plane, Plane):
        raise CompositionError("missing-signal", "no 'plane' condition", fits=f"{config.plane_channels} channels")
    return plane.value


def _vector_embed(config: UNetConfig) -> nn.Module | None:
    wide = config.embedding
    if config.vector == "mlp":
        return EmbeddingMLP(config.vector_dim or 0, wide)
    if config.vector == "linear":
        return PortedLinear(config.vector_dim or 0, wide)
    if config.vector == "table":
        return ClassTable(config.vector_dim or 0, wide)
    if config.vector == "timestep":
        return TimeLikeMLP(config.code, wide, config.cos_first, config.freq_shift, config.activation)
    return None


def _frame(value: Tensor, context: Context) -> Frame:
    return Frame(value, value.new_zeros(value.shape[0]), context)


def _contiguous(pair: KeysValues) -> KeysValues:
    return pair[0].contiguous(), pair[1].contiguous()
