"""The Frechet distance and the diversity against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from ldmkit_miniworld.frechet import diversity, frechet

from ldmkit.errors import InputError


def test_axis_aligned_normals_have_a_closed_form() -> None:
    # four points (+-a, +-b) have mean 0 and covariance diag(a^2, b^2) * 4/3 exactly
    def cross(a: float, b: float) -> np.ndarray:
        return np.array([[a, b], [a, -b], [-a, b], [-a, -b]])

    moved = cross(3, 1) + np.array([2.0, 0.0])
    # |m|^2 = 4, and (sqrt(4/3) (3 - 1))^2 + (sqrt(4/3) (1 - 5))^2
    expected = 4 + 4 / 3 * (2**2 + 4**2)
    assert frechet(moved, cross(1, 5)) == pytest.approx(expected, rel=1e-12)


def test_it_is_symmetric_and_zero_on_itself() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(40, 6))
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_a_rotation_of_both_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(30, 5)) * [1, 2, 3, 4, 5], rng.normal(size=(30, 5))
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert frechet(a @ turn, b @ turn) == pytest.approx(frechet(a, b), rel=1e-9)


def test_covariances_without_full_rank_are_no_trouble() -> None:
    rng = np.random.default_rng(2)
    few = rng.normal(size=(4, 64)).astype(np.float32)  # rank 3 of 64, and float32 as networks give them
    assert frechet(few, few) == pytest.approx(0, abs=1e-6)
    assert frechet(few, few + 1) == pytest.approx(64, rel=1e-6)


def test_diversity_by_hand() -> None:
    # a triangle of sides 3, 4 and 5
    assert diversity(np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])) == pytest.approx(4.0)
    assert diversity(np.ones((5, 3))) == 0.0


def test_too_few_or_unlike_features_are_refused() -> None:
    with pytest.raises(InputError, match="few-features"):
        frechet(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(InputError, match="few-features"):
        diversity(np.zeros((1, 3)))
    with pytest.raises(InputError, match="feature-shape"):
        frechet(np.zeros((5, 3)), np.zeros((5, 4)))
