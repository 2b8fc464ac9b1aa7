"""The optional abilities (mixins) of a conditioner, including those declared as in version 1 of the contract."""

from __future__ import annotations

from inspect import getattr_static
from typing import Any, TypeVar, cast

from torch import nn

from ldmkit.contracts.codec import Codec
from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.conditioner_abilities import ABILITIES, OnGrid, Proposing, SharesWeights, UsesCodec, members
from ldmkit.contracts.conditioner_v1 import FormerMembers
from ldmkit.contracts.signals import Signal
from ldmkit.errors import CompositionError
from ldmkit.plugins.deprecation import Notice

Ability = TypeVar("Ability", bound=Conditioner)


def able(conditioner: Conditioner, ability: type[Ability]) -> Ability | None:
    """The conditioner if it inherits the mixin, or overrides one of its members as in version 1; else None."""
    if isinstance(conditioner, ability):
        return conditioner
    return cast(Ability, conditioner) if former(conditioner, ability) else None


def former(conditioner: Conditioner, ability: type[Conditioner]) -> tuple[str, ...]:
    """Members of a mixin that a conditioner overrides without inheriting the mixin."""
    if isinstance(conditioner, ability):
        return ()
    old = vars(FormerMembers)
    own = [name for name in members(ability) if getattr_static(conditioner, name) is not old[name]]
    return tuple(name for name in own if name != "ports" or conditioner.ports)


def undeclared(conditioner: Conditioner) -> dict[str, tuple[str, ...]]:
    """Name of each mixin that a conditioner should inherit -> the members that it defines without it."""
    found = {ability.__name__: former(conditioner, ability) for ability in ABILITIES}
    return {name: own for name, own in found.items() if own}


def warn_undeclared(conditioner: Conditioner) -> None:
    """Issue a deprecation warning for each mixin that a conditioner should inherit."""
    for mixin, own in undeclared(conditioner).items():
        what = f"{type(conditioner).__name__}.{', '.join(own)} of a conditioner that does not inherit ldmkit.{mixin}"
        Notice(what, since="0.1", removal="0.3", use=f"class {type(conditioner).__name__}(ldmkit.{mixin}, ...)").warn()


def encode_on(conditioner: Conditioner, inputs: list[Any], grid: tuple[int, int]) -> Signal:
    """The signal of parsed inputs for latents of grid = (h, w) cells."""
    gridded = able(conditioner, OnGrid)
    signal: Signal = conditioner(inputs) if gridded is None else gridded.on_grid(inputs, grid)
    return signal


def bind(conditioner: Conditioner, codec: Codec) -> None:
    """Pass the pipeline's codec to a conditioner that uses it."""
    if (using := able(conditioner, UsesCodec)) is not None:
        using.bind(codec)


def share(conditioner: Conditioner, other: Conditioner) -> None:
    """Make a conditioner use the weights of another one.

    Raises:
        CompositionError: `cannot-share`.
    """
    if (sharing := able(conditioner, SharesWeights)) is None:
        what = f"{type(conditioner).__name__} cannot share {type(other).__name__}'s weights"
        raise CompositionError("cannot-share", what)
    sharing.adopt(other)


def proposer_of(conditioner: Conditioner) -> nn.Module | None:
    """The network that proposes a conditioner's input; None if there is none."""
    proposing = able(conditioner, Proposing)
    return None if proposing is None else proposing.proposer
