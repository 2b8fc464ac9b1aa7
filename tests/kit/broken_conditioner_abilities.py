"""Conditioners whose further abilities break their promise: what they inherit, proposals, sizes, calls from threads."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from broken_conditioner import breaks
from good_conditioner import Colours, Palette
from torch import nn

from ldmkit import Ported, Proposing, SetsSize, Signal, UsesCodec


@breaks("abilities")
class Undeclared(Palette):
    """Has a member of a mixin that it does not inherit, and says that it knows of mixins."""

    api = 2

    def bind(self, codec: Any) -> None:
        self.codec_seen = True


@breaks("abilities")
class Unwritten(Palette, UsesCodec):
    """Inherits an ability, and has no member of it."""


@breaks("abilities")
class Portless(Palette, Ported):
    """Says that it has ports, and has none."""


@breaks("abilities")
class Untrainable(Palette, Proposing):
    """Has a network that proposes, and nothing that trains it."""

    def propose(self, given: Mapping[str, Any], size: tuple[int, int], seed: int) -> Any:
        return None

    @property
    def proposer(self) -> nn.Module:
        return self.project


@breaks("proposals")
class NeedsText(Palette, Proposing):
    """Takes for granted that there is a text to make something up from."""

    def propose(self, given: Mapping[str, Any], size: tuple[int, int], seed: int) -> Any:
        return Colours(colours=(f"#{len(given['text']):06x}",))


@breaks("proposals")
class Whimsical(Palette, Proposing):
    """Makes up something else every time."""

    def propose(self, given: Mapping[str, Any], size: tuple[int, int], seed: int) -> Any:
        return Colours(colours=(f"#{time.perf_counter_ns() % 2**24:06x}",))


@breaks("picture-size")
class HalfPixels(Palette, SetsSize):
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
