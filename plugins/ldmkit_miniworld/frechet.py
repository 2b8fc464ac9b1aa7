"""Distances between sets of feature vectors: Frechet, and how varied one set is."""

from __future__ import annotations

import numpy as np

from ldmkit import InputError


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Frechet distance of the normal distributions that fit two sets of features (N,D) and (M,D).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson and Landau 1982; arXiv:1706.08500). The trace of the root is
    the sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric: in float64, and for
    covariances without full rank, nothing turns complex.

    Raises:
        InputError: `few-features`: fewer than two vectors; `feature-shape`: sets of different width.
    """
    a, b = (np.asarray(side, np.float64) for side in (first, second))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise InputError("feature-shape", f"features of shapes {a.shape} and {b.shape}", fits="(N, D) and (M, D)")
    if min(len(a), len(b)) < 2:
        raise InputError("few-features", f"{len(a)} and {len(b)} pictures", fits="two or more of each")
    first_spread, second_spread = (np.cov(side, rowvar=False).reshape(a.shape[1], -1) for side in (a, b))
    values, vectors = np.linalg.eigh(first_spread)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    crossed = root @ second_spread @ root
    shared = np.sqrt(np.clip(np.linalg.eigvalsh((crossed + crossed.T) / 2), 0, None)).sum()
    distance = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(first_spread) + np.trace(second_spread) - 2 * shared
    return float(max(distance, 0.0))


def diversity(features: np.ndarray) -> float:
    """Mean Euclidean distance between two different vectors of a set (N,D).

    Raises:
        InputError: `few-features`: fewer than two vectors.
    """
    rows = np.asarray(features, np.float64)
    if len(rows) < 2:
        raise InputError("few-features", f"{len(rows)} pictures", fits="two or more")
    squares = np.square(rows).sum(1)
    distances = np.sqrt(np.clip(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0, None))
    np.fill_diagonal(distances, 0.0)
    return float(distances.sum() / (len(rows) * (len(rows) - 1)))
