"""Checks that a conditioner inherits the mixins of its abilities."""

from __future__ import annotations

from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.conditioner_abilities import ABILITIES, Ported, Proposing
from ldmkit.models.abilities import undeclared
from ldmkit.plugins.admission import api_of
from ldmkit.testing.checks import check, expect, fail
from ldmkit.testing.conditioner.subject import Subject


@check("conditioner", "abilities")
def abilities(s: Subject) -> str | None:
    """It inherits the mixin of each ability whose members it has, and defines the members of each mixin it inherits.

    `on_grid` belongs to `ldmkit.OnGrid`, `picture_size` to `SetsSize`, `known` to `KnowsRegion`, `bind` to `UsesCodec`,
    `adopt` to `SharesWeights`, `default` to `HasDefault`, `propose`, `proposer` and `proposal_losses` to `Proposing`,
    `ports`, `frame` and `framed` to `Ported`. Parts of version 1 of the contract (`api = 1`) may have members without
    the mixin: they work, with a deprecation warning, and the report says what to inherit.
    """
    _written(s.cls)
    part = s.build()
    if isinstance(part, Ported):
        expect(bool(part.ports), "ports of a ldmkit.Ported", "none: self.ports = ldmkit.linear_ports(self)")
    if isinstance(part, Proposing) and part.proposer is not None:
        overrides = type(part).proposal_losses is not Proposing.proposal_losses
        expect(overrides, "`proposal_losses`, which train the `proposer`", "the default, which raises an error")
    missing = undeclared(part)
    found = "; ".join(f"inherit ldmkit.{mixin} for {', '.join(own)}" for mixin, own in missing.items())
    if missing and api_of(s.cls) > 1:
        fail("the mixin of each member that a class of this version of the contract has", found)
    return found or None


def _written(cls: type) -> None:
    """A class that inherits an ability without defining its members cannot be instantiated."""
    absent: frozenset[str] = getattr(cls, "__abstractmethods__", frozenset())
    for ability in ABILITIES:
        names = sorted(absent & ability.__abstractmethods__ - Conditioner.__abstractmethods__)
        if issubclass(cls, ability) and names:
            fail(f"{', '.join(names)} of the inherited ldmkit.{ability.__name__}", "no such member")
