"""Soft edges, lines and blur against scipy and OpenCV, and numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ldmkit_extractors.gaussian import blurred, kernel
from ldmkit_extractors.soft import Lineart, Sobel, XDoG, stepped
from ldmkit_extractors.tones import Blur, luma
from scipy import ndimage

import ldmkit
from ldmkit.testing.extractor import drawing

Array = np.ndarray[Any, Any]
SHAPES = [(1, 1), (1, 9), (6, 1), (2, 2), (40, 56), (64, 33)]


def levels_of(extractor: ldmkit.Extractor, levels: Array) -> Array:
    """One channel of a grey hint; all three are equal."""
    hint = ldmkit.to_levels(extractor.extract(ldmkit.from_levels(levels)))
    assert (hint == hint[..., :1]).all()
    return hint[..., 0].astype(int)


def picture(shape: tuple[int, int], seed: int = 0) -> Array:
    return ldmkit.to_levels(drawing(shape, seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 6.0])
def test_blur_is_scipy_s(shape: tuple[int, int], sigma: float) -> None:
    """Its `mirror` is about edge pixels too; up to rounding of sums, half a level where they differ by rounding."""
    levels = picture(shape)
    reach = len(kernel(sigma)) // 2 / sigma
    wanted = ndimage.gaussian_filter(levels.astype(float), (sigma, sigma, 0), mode="mirror", truncate=reach)
    assert np.abs(blurred(levels.astype(float), sigma) - wanted).max() < 1e-9
    found = ldmkit.to_levels(Blur(sigma=sigma).extract(ldmkit.from_levels(levels)))
    assert np.abs(found - wanted).max() <= 0.5 + 1e-9


def test_the_size_of_the_kernel_is_opencv_s() -> None:
    cv2 = pytest.importorskip("cv2")
    for sigma in np.linspace(0.2, 9, 45):
        wanted = cv2.GaussianBlur(np.eye(1, 201, 100, dtype=np.float64), (0, 0), float(sigma))[0]
        found = kernel(float(sigma))
        assert np.count_nonzero(wanted) == len(found), sigma
        assert np.allclose(wanted[wanted > 0], found, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_sobel_is_scipy_s(shape: tuple[int, int]) -> None:
    levels = picture(shape)
    grey = ndimage.gaussian_filter(luma(levels).astype(float), 1.5, mode="mirror", truncate=6 / 1.5)
    dx, dy = (ndimage.sobel(grey, axis, mode="nearest") for axis in (1, 0))
    wanted = (np.hypot(dx, dy) / 4 * 2).clip(0, 255)
    assert np.abs(levels_of(Sobel(sigma=1.5, gain=2), levels) - wanted).max() <= 0.5 + 1e-6


def test_a_step_is_as_bright_as_it_is_high() -> None:
    step = np.zeros((5, 8, 3), np.uint8)
    step[:, 4:] = 90
    assert levels_of(Sobel(sigma=0, gain=1), step)[2].tolist() == [0, 0, 0, 90, 90, 0, 0, 0]


def test_safe_steps() -> None:
    """int(3 x) / 2, as published, with 1 where that is 1.5."""
    given = np.array([0, 0.3, 0.334, 0.6, 0.667, 0.99, 1.0])
    assert stepped(given, 2).tolist() == [0, 0, 0.5, 0.5, 1, 1, 1]
    assert stepped(given, 0) is given
    ramp = np.repeat(np.cumsum(np.arange(23))[None, :, None], 3, axis=2).astype(np.uint8)
    assert set(np.unique(levels_of(Sobel(sigma=0, gain=10, steps=2), ramp))) == {0, 128, 255}
    assert set(np.unique(levels_of(XDoG(steps=1), 255 * (picture((64, 64)) > 99).astype(np.uint8)))) == {0, 255}


@pytest.mark.parametrize("shape", SHAPES)
def test_xdog_by_scipy_s_gaussians(shape: tuple[int, int]) -> None:
    levels = picture(shape)
    grey = luma(levels) / 255

    def gaussian(sigma: float) -> Array:
        reach = len(kernel(sigma)) // 2 / sigma
        return np.asarray(ndimage.gaussian_filter(grey, sigma, mode="mirror", truncate=reach))

    difference = gaussian(0.8) - 0.95 * gaussian(0.8 * 1.6)
    wanted = np.where(difference < 0.01, np.tanh(-12 * (difference - 0.01)), 0) * 255
    found = levels_of(XDoG(sigma=0.8, tau=0.95, epsilon=0.01, phi=12), levels)
    assert np.abs(found - wanted).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_lineart_is_lineart_standard(shape: tuple[int, int]) -> None:
    """As published, by OpenCV's blur; a level off at most, for sums in single precision are cut off to levels."""
    cv2 = pytest.importorskip("cv2")
    for number in range(3):
        levels = picture(shape, number) if number else (255 * (picture(shape) > 100)).astype(np.uint8)
        x = levels.astype(np.float32)
        darker = np.min(cv2.GaussianBlur(x, (0, 0), 6.0).reshape(x.shape) - x, axis=2).clip(0, 255)
        strong = darker[darker > 8]
        darker = darker / max(16, np.median(strong) if strong.size else 0) * 127
        wanted = darker.clip(0, 255).astype(np.uint8).astype(int)
        found = levels_of(Lineart(), levels)
        assert np.abs(found - wanted).max() <= 1
        assert (found != wanted).mean() < 0.02


def test_flat_pictures_have_no_lines() -> None:
    for level in (0, 60, 255):
        flat = np.full((30, 40, 3), level, np.uint8)
        for extractor in (Sobel(), XDoG(), Lineart()):
            assert not levels_of(extractor, flat).any(), extractor
