"""Conditioners whose ports break their promise."""

from __future__ import annotations

from broken_conditioner import breaks
from good_conditioner import Spoken

from ldmkit import Context, Frame, Signal, Vector


@breaks("ports")
class Frameless(Spoken):
    """Does not hand its frame down."""

    def forward(self, inputs: list[str]) -> Signal:
        return Vector(self.layer(self.numbers(inputs)))


@breaks("ports")
class AlwaysTapped(Spoken):
    """Makes up a frame where it has none."""

    def forward(self, inputs: list[str]) -> Signal:
        value = self.numbers(inputs)
        return Vector(self.layer(value, self.frame or Frame(value, value, Context({}))))
