"""The four signal types that a conditioner may emit: immutable named tuples, and so native pytrees.

| signal    | value                          | used by the denoiser as        |
|-----------|--------------------------------|--------------------------------|
| Tokens    | (B, L, D), mask (B, L) or None | keys and values of cross-attention |
| Vector    | (B, D)                         | added to the time embedding    |
| Plane     | (B, C, h, w)                   | concatenated to the noisy latent |
| Residuals | ((B, C_i, h_i, w_i), ...)      | added at the skip ports        |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ldmkit.errors import CompositionError

SignalKind: TypeAlias = Literal["tokens", "vector", "plane", "residuals"]
Join: TypeAlias = Literal["only", "length", "feature", "sum"]


class Slot(NamedTuple):
    """A condition that a denoiser (or adapter) takes.

    Args:
        kind: the kind of signal.
        dim: D of tokens and vectors, C of planes; the total if several signals are joined by feature.
        join: how several signals wired to the slot are combined.
        required: composing without this slot is an error.
    """

    kind: SignalKind
    dim: int
    join: Join = "only"
    required: bool = False


class Tokens(NamedTuple):
    """A sequence for cross-attention: value (B, L, D); mask (B, L) bool, True = attend, None = attend to all."""

    value: Tensor
    mask: Tensor | None = None


class Vector(NamedTuple):
    """One vector per sample: (B, D)."""

    value: Tensor


class Plane(NamedTuple):
    """A map at latent resolution: (B, C, h, w)."""

    value: Tensor


class Residuals(NamedTuple):
    """Feature maps to add at the denoiser's skip ports, in port order: (B, C_i, h_i, w_i) each."""

    values: tuple[Tensor, ...]


Signal: TypeAlias = Tokens | Vector | Plane | Residuals

KIND_OF: dict[type, SignalKind] = {Tokens: "tokens", Vector: "vector", Plane: "plane", Residuals: "residuals"}

AXES: dict[SignalKind, int] = {"tokens": 3, "vector": 2, "plane": 4, "residuals": 4}
"""Number of axes of a signal's tensors, including the batch axis."""


def kind_of(signal: Signal) -> SignalKind:
    """The signal's kind, as in `Slot.kind`."""
    return KIND_OF[type(signal)]


def dim_of(signal: Signal) -> int:
    """Feature dimension: D of tokens and vectors, C of planes, number of maps of residuals."""
    if isinstance(signal, Residuals):
        return len(signal.values)
    return int(signal.value.shape[1] if isinstance(signal, Plane) else signal.value.shape[-1])


def rows_of(signal: Signal) -> int:
    """Number of rows of a signal: batch size times views."""
    return int((signal.values[0] if isinstance(signal, Residuals) else signal.value).shape[0])


def to(signal: Signal, device: torch.device, dtype: torch.dtype) -> Signal:
    """The signal on a device, with its values in a dtype; the mask of tokens stays boolean.

    A vector of one number, a class or a time, has at least float32: bfloat16 holds no integer above 256 exactly.
    """
    if isinstance(signal, Residuals):
        return Residuals(tuple(v.to(device, dtype) for v in signal.values))
    if isinstance(signal, Tokens):
        mask = None if signal.mask is None else signal.mask.to(device)
        return Tokens(signal.value.to(device, dtype), mask)
    if isinstance(signal, Vector) and signal.value.shape[-1] == 1:
        dtype = torch.promote_types(dtype, torch.float32)
    return type(signal)(signal.value.to(device, dtype))


def tensors_of(signal: Signal) -> tuple[Tensor, ...]:
    """The floating-point tensors of a signal."""
    return signal.values if isinstance(signal, Residuals) else (signal.value,)


def zeros_like(signal: Signal) -> Signal:
    """The zero signal of the same shape; the mask of tokens is kept."""
    if isinstance(signal, Tokens):
        return Tokens(torch.zeros_like(signal.value), signal.mask)
    if isinstance(signal, Residuals):
        return Residuals(tuple(torch.zeros_like(v) for v in signal.values))
    return type(signal)(torch.zeros_like(signal.value))


def cat_rows(signals: Sequence[Signal]) -> Signal:
    """Signals of one kind concatenated along the batch; shorter token sequences are padded and masked."""
    first = signals[0]
    if len(signals) == 1:
        return first
    if isinstance(first, Residuals):
        columns = zip(*(s.values for s in signals if isinstance(s, Residuals)), strict=True)
        return Residuals(tuple(torch.cat(column) for column in columns))
    if isinstance(first, Tokens):
        tokens = [s for s in signals if isinstance(s, Tokens)]
        length = max(t.value.shape[1] for t in tokens)
        padded = [_padded(t, length) for t in tokens]
        if all(t.mask is None for t in padded):
            return Tokens(torch.cat([t.value for t in padded]))
        return Tokens(torch.cat([t.value for t in padded]), torch.cat([full_mask(t) for t in padded]))
    return type(first)(torch.cat([s.value for s in signals if not isinstance(s, Residuals)]))


def full_mask(tokens: Tokens) -> Tensor:
    """The mask of a token signal; all True if it has none."""
    if tokens.mask is not None:
        return tokens.mask
    return torch.ones(tokens.value.shape[:2], dtype=torch.bool, device=tokens.value.device)


def _padded(tokens: Tokens, length: int) -> Tokens:
    missing = length - tokens.value.shape[1]
    if missing == 0:
        return tokens
    return Tokens(F.pad(tokens.value, (0, 0, 0, missing)), F.pad(full_mask(tokens), (0, missing)))


def select_rows(keep: Tensor, yes: Signal, no: Signal) -> Signal:
    """Row-wise selection: `yes` where keep (B,) is True, `no` elsewhere."""
    if isinstance(yes, Residuals) and isinstance(no, Residuals):
        pairs = zip(yes.values, no.values, strict=True)
        return Residuals(tuple(_where(keep, a, b) for a, b in pairs))
    if isinstance(yes, Tokens) and isinstance(no, Tokens):
        length = max(yes.value.shape[1], no.value.shape[1])
        a, b = _padded(yes, length), _padded(no, length)
        mask = None if a.mask is None and b.mask is None else _where(keep, full_mask(a), full_mask(b))
        return Tokens(_where(keep, a.value, b.value), mask)
    if isinstance(yes, (Vector, Plane)) and type(yes) is type(no):
        return type(yes)(_where(keep, yes.value, no.value))
    raise CompositionError("mixed-signals", f"cannot mix {kind_of(yes)} with {kind_of(no)}")


def _where(keep: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(keep.view(-1, *[1] * (yes.ndim - 1)), yes, no)
