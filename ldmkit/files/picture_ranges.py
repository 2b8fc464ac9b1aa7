"""Warnings about tensors whose values suggest that they are in another range than [-1, 1]."""

from __future__ import annotations

from torch import Tensor

from ldmkit.errors import warn

UNLIKELY = 8
"""So many levels from 0 to 1 with none between -1 and 0 are no accident."""


def remark_picture(picture: Tensor, where: str | None) -> None:
    """Warn about a tensor whose values all lie in [0, 1], but for some of -1, because tensors are expected in [-1, 1].

    diffusers' conditions for inpainting are of the second kind: a picture in [0, 1], and -1 where it is unknown.
    """
    least, most = float(picture.amin()), float(picture.amax())
    if least == -1 and _is_known_in_part(picture[(picture > -1) & (picture < 1)]):
        what = "values of the tensor are -1, or from 0 to 1, as in a condition for inpainting, which is not read so"
        expected = '{"picture": {"image": ..., "mask": ...}, "extract": "inpaint"}; tensors are expected in [-1, 1]'
        warn(f"{where or 'a picture'}: {what}: {expected}")
    if 0 <= least < most <= 1:
        what = f"no value of the tensor is below 0 ({least:.3g} to {most:.3g})"
        expected = "tensors are expected in [-1, 1], where 0 is mid-grey; pass 2 * x - 1 for a picture in [0, 1]"
        warn(f"{where or 'a picture'}: {what}: {expected}")


def _is_known_in_part(inner: Tensor) -> bool:
    """Whether the values between -1 and 1 are many different ones, none of them negative."""
    return inner.numel() > 0 and float(inner.amin()) >= 0 and _different(inner) >= UNLIKELY


def _different(values: Tensor) -> int:
    """How many different values there are, of at least one."""
    return 1 + int(values.sort().values.diff().count_nonzero())
