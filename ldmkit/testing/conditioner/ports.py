"""What a conditioner promises of its ports, where it publishes any."""

from __future__ import annotations

import torch

from ldmkit.contracts.conditioner_abilities import Ported
from ldmkit.contracts.ports import Port, attached
from ldmkit.contracts.step import Context, Frame
from ldmkit.models.abilities import able
from ldmkit.testing.batches import differ, same
from ldmkit.testing.checks import NotApplicable, check, expect
from ldmkit.testing.conditioner.subject import Subject, flat, no_grad
from ldmkit.testing.denoiser.subject import jolt


@check("conditioner", "ports")
def ports(s: Subject) -> None:
    """Taps at its ports act where it has a frame, and only there; the ports are `linear.<path>`.

    A pipeline with an adapter encodes with `framed(frame)` of a `ldmkit.Ported`; whoever else calls the conditioner
    must not notice the adapter. Hand `self.frame` down to the layers, `ldmkit.PortedLinear`, and publish
    `ldmkit.linear_ports(self)`.
    """
    part = s.make()
    if (ported := able(part, Ported)) is None:
        raise NotApplicable("it publishes no ports")
    values = s.given(part)
    base = flat(no_grad(lambda: s.signal(part, values)))
    nothing = torch.empty(0, device=part.device)
    acting = 0
    for name, port in ported.ports.items():
        known = name.startswith("linear.") and isinstance(port, Port)
        expect(known, "ports: linear.<path> -> ldmkit.Port", f"{name!r}: {type(port).__name__}")
        with attached(ported.ports, {name: jolt}):
            same(flat(no_grad(lambda: s.signal(part, values))), base, f"the signal without a frame, tapped at {name!r}")
            framed = ported.framed(Frame(nothing, nothing, Context({})))
            acts = differ(flat(no_grad(lambda framed=framed: s.signal(framed, values))), base)  # type: ignore[misc]
        acting += acts
        expect(acts or not s.trained, f"another signal with a frame and a tap at {name!r}", "the same one")
    expect(bool(acting), "another signal with a frame and a tap at some port", "the same one")
    same(flat(no_grad(lambda: s.signal(part, values))), base, "the signal after the taps were taken off")
