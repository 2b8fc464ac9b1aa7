"""Derivatives of pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_KERNELS: dict[int, tuple[list[int], list[int]]] = {
    3: ([-1, 0, 1], [1, 2, 1]),
    5: ([-1, -2, 0, 2, 1], [1, 4, 6, 4, 1]),
    7: ([-1, -4, -5, 0, 5, 4, 1], [1, 6, 15, 20, 15, 6, 1]),
}
"""Side -> derivative and smoothing of Sobel's kernels."""


def sobel(levels: Array, aperture: int) -> tuple[Array, Array]:
    """Derivatives (dx, dy) along x and y of (H, W, C) floats, or int32 of uint8; borders are repeated.

    Those of aperture 7 are divided by 16, halves rounded to even, and kept within 16 bits, as OpenCV's Canny has them.
    """
    derivative, smooth = _KERNELS[aperture]
    values = levels.astype(np.int32) if levels.dtype == np.uint8 else levels
    wide = np.pad(values, ((aperture // 2,) * 2, (aperture // 2,) * 2, (0, 0)), mode="edge")
    dx = _along(_along(wide, derivative, 1), smooth, 0)
    dy = _along(_along(wide, smooth, 1), derivative, 0)
    if aperture < 7:
        return dx, dy
    return tuple(np.rint(one / 16).clip(-32768, 32767).astype(np.int32) for one in (dx, dy))  # type: ignore[return-value]


def _along(values: Array, kernel: list[int], axis: int) -> Array:
    """Correlation along an axis, where the whole kernel fits."""
    count = values.shape[axis] - len(kernel) + 1
    parts = [weight * values.take(range(i, i + count), axis) for i, weight in enumerate(kernel) if weight]
    return sum(parts[1:], parts[0])
