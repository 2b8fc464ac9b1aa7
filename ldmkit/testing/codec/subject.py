"""The subject of the checks of codecs: a class, a configuration, and matching data and latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.axes import Axis, Size, decoded_size, latent_sides
from ldmkit.testing.batches import normal
from ldmkit.testing.modules import ROWS, ModuleSubject

USUAL = (4, 6)
"""Height and width of the kit's pictures, in units of the codec's `multiple`, and of its latents, in cells."""

SIZES = ((1, 1), (4, 4), (4, 6), (5, 3))
"""Heights and widths of the kit's pictures, in units of the codec's `multiple`."""

DRAWS = 4
"""Number of different noise draws for a decoder; further draws repeat them."""


@dataclass(frozen=True)
class CodecSubject(ModuleSubject):
    """A codec and one configuration of it.

    Args:
        error: see `Example.error`.
    """

    error: float | None = None

    def given(self, part: Any) -> dict[str, Tensor]:
        images = pictures(part)
        latents = latent_sides(images.shape[2:], part.axes)
        drawn = normal(ROWS, DRAWS, *images.shape[1:], like=part, seed=2)
        return {"images": images, "noise": normal(ROWS, part.channels, *latents, like=part, seed=1), "drawn": drawn}

    def outputs(self, part: Any, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        latents, sampled = part.encode(given["images"]), part.encode(given["images"], given["noise"])
        decoded = part.decode_with(latents, draws(given["drawn"]))
        return latents, sampled, part.decode(latents), decoded, part.preview(latents)

    def learning(self, part: Any, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        made = part.reconstruct(given["images"], given["noise"])
        return made.images, *made.losses.values()


def draws(drawn: Tensor) -> Callable[[int], Tensor]:
    """Noise for a decoder: index -> (B, *shape), from (B, DRAWS, *shape)."""
    return lambda index: drawn[:, index % DRAWS]


def noise_of(codec: Any, latents: Tensor, seed: int = 0) -> Callable[[int], Tensor]:
    """Noise for decoding latents."""
    size = decoded_size(latents.shape[2:], codec.axes)
    return draws(normal(len(latents), DRAWS, codec.data_channels, *size, like=codec, seed=seed))


def pictures(codec: Any, rows: int = USUAL[0], columns: int = USUAL[1], seed: int = 0) -> Tensor:
    """`ROWS` different pictures in [-1, 1], or other data of the codec; sizes are in units of its `multiple`."""
    size = [_side(axis, units) for axis, units in zip(codec.axes, _spread(codec, rows, columns), strict=True)]
    shades = normal(ROWS, codec.data_channels, *[1] * len(size), like=codec, seed=seed + 100)
    return torch.tanh(0.5 * normal(ROWS, codec.data_channels, *size, like=codec, seed=seed) + shades)


def latents(codec: Any, seed: int = 0) -> Tensor:
    """`ROWS` standard normal latents."""
    return normal(ROWS, codec.channels, *_spread(codec, *USUAL), like=codec, seed=seed)


def ill_sized(codec: Any) -> list[Size]:
    """Sizes that do not fit the codec: one side is a position too long or too short."""
    fits = [_side(axis, units) for axis, units in zip(codec.axes, _spread(codec, *USUAL), strict=True)]
    found: list[Size] = []
    for i, axis in enumerate(codec.axes):
        unit = axis.multiple or axis.factor
        sides = [fits[i] + 1, fits[i] - 1, int(axis.causal) + unit // 2] if unit > 1 else []
        found += [(*fits[:i], side, *fits[i + 1 :]) for side in dict.fromkeys(sides)]
    return found


def _spread(codec: Any, rows: int, columns: int) -> Size:
    """Units along each axis: rows and columns along the last two, few along leading axes."""
    count = len(codec.axes)
    whole = (*[min(3, rows, columns)] * count, rows, columns)
    return whole[len(whole) - count :]


def _side(axis: Axis, units: int) -> int:
    first, unit = int(axis.causal), axis.multiple or axis.factor
    return first + (units - first) * unit
