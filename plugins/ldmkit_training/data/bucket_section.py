"""Which sizes the buckets of a recipe have."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, TypeAlias

from pydantic import Field

from ldmkit import SpecError, Value

Size: TypeAlias = tuple[int, int]
"""(height, width)."""


class BucketsSection(Value):
    """Sizes of about the area of `data.size`, for pictures of mixed proportions; a batch is of one of them.

    Args:
        step: all sides are multiples of it: of what the codec and the network need.
        ratio: the longer side by the shorter one, at most.
        small: a picture that has fewer pixels along a side than its bucket: has one of its own size, cut to multiples
            of `step` (`smaller-bucket`), is enlarged, or is left out. Nothing is enlarged otherwise.
    """

    step: int = Field(default=64, ge=1, le=4096)
    ratio: float = Field(default=2.0, ge=1, le=16)
    small: Literal["smaller-bucket", "enlarge", "leave-out"] = "smaller-bucket"

    def sizes(self, size: Size) -> tuple[Size, ...]:
        """All sizes of the area of `size`: for each side the largest other one that keeps within it.

        Raises:
            SpecError: `bucket-size`: `size` is none of them.
        """
        return _sizes(size, self.step, self.ratio)


@lru_cache(maxsize=64)
def _sizes(size: Size, step: int, ratio: float) -> tuple[Size, ...]:
    if wrong := [side for side in size if side % step]:
        near = [max(1, round(side / step)) * step for side in size]
        what = f"{wrong[0]} is no multiple of the buckets' step of {step}"
        raise SpecError("bucket-size", what, where="data.size", fits=f"{near}, say, or another `data.buckets.step`")
    if max(size) > ratio * min(size):
        what = f"{size[0]} x {size[1]} has longer proportions than the buckets' ratio of {ratio:g}"
        raise SpecError("bucket-size", what, where="data.buckets.ratio", fits=f"{max(size) / min(size):.4g} or more")
    area, found = size[0] * size[1], set[Size]()
    for side in range(step, area // step + 1, step):
        other = area // side // step * step
        if max(side, other) <= ratio * min(side, other):
            found |= {(side, other), (other, side)}
    return tuple(sorted(found))
