"""Gaussian blur."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def kernel(sigma: float, reach: float = 4.0) -> Array:
    """Weights of a Gaussian at whole distances, that sum to 1, float64; their number is odd.

    Args:
        reach: how far it goes, in sigmas; OpenCV's is 4 for floats and 3 for bytes.
    """
    half = round(sigma * reach * 2 + 1) // 2  # OpenCV's rule for the size: round(...) | 1
    x = np.arange(-half, half + 1)
    weights = np.exp(-(x**2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum())


def blurred(values: Array, sigma: float, reach: float = 4.0) -> Array:
    """(H, W) or (H, W, C) floats, blurred along both axes; the picture is mirrored at its edge pixels. 0: as it is."""
    if sigma == 0:
        return values
    weights = kernel(sigma, reach)
    return _along(_along(values, weights, 1), weights, 0)


def _along(values: Array, weights: Array, axis: int) -> Array:
    half = len(weights) // 2
    places = np.arange(-half, values.shape[axis] + half)
    wide = values.take(_mirrored(places, values.shape[axis]), axis)
    count = values.shape[axis]
    total = np.zeros_like(values)
    for i in range(half):  # the kernel is symmetric
        pair = wide.take(range(i, i + count), axis) + wide.take(range(2 * half - i, 2 * half - i + count), axis)
        total += pair * weights.dtype.type(weights[i])
    return total + wide.take(range(half, half + count), axis) * weights[half]


def _mirrored(places: Array, count: int) -> Array:
    """Places on a line of `count` pixels, which is mirrored at its first and last one as often as needed."""
    if count == 1:
        return np.zeros_like(places)
    period = 2 * (count - 1)
    folded = np.abs(places) % period
    return np.minimum(folded, period - folded)
