"""Conditioners whose further abilities break their promise: proposals, sizes, calls from several threads."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from broken_conditioner import breaks
from good_conditioner import Colours, Palette

from ldmkit import Signal


@breaks("proposals")
class NeedsText(Palette):
    """Takes for granted that there is a text to make something up from."""

    def propose(self, given: Mapping[str, Any], size: tuple[int, int], seed: int) -> Any:
        return Colours(colours=(f"#{len(given['text']):06x}",))


@breaks("proposals")
class Whimsical(Palette):
    """Makes up something else every time."""

    def propose(self, given: Mapping[str, Any], size: tuple[int, int], seed: int) -> Any:
        return Colours(colours=(f"#{time.perf_counter_ns() % 2**24:06x}",))


@breaks("picture-size")
class HalfPixels(Palette):
    """Asks for half pixels."""

    def picture_size(self, value: Any, factor: int) -> Any:
        return (8.5, 8.5)


@breaks("threads")
class Shared(Palette):
    """Keeps the inputs of a call where another thread finds them."""

    def forward(self, inputs: list[Any]) -> Signal:
        self.inputs = inputs
        time.sleep(0.001)
        return super().forward(self.inputs)
