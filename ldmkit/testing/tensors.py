"""How the contract kit compares tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from ldmkit.testing.checks import fail


def expect_close(found: Tensor, wanted: Tensor, what: str, atol: float) -> None:
    """Fail unless both have the same shape and differ by at most `atol` everywhere; NaN is never close."""
    if found.shape != wanted.shape:
        fail(f"{what}: shape {tuple(wanted.shape)}", f"shape {tuple(found.shape)}")
    if found.numel() == 0:
        return
    difference = float((found.double() - wanted.double()).abs().max())
    if not difference <= atol:
        fail(f"{what}: equal within {atol:g}", f"they differ by up to {difference:.3g}")


def expect_equal(found: Tensor, wanted: Tensor, what: str) -> None:
    """Fail unless both are the same bit for bit."""
    if found.dtype != wanted.dtype or not torch.equal(found, wanted):
        expect_close(found, wanted, what, 0.0)
        fail(f"{what}: the same, bit for bit", f"dtypes {wanted.dtype} and {found.dtype}, or NaN")
