"""Checks of a conditioner's ports, if it publishes any."""

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
    """Taps at its ports act if it has a frame, and only then; the ports are named `linear.<path>`.

    A pipeline with an adapter encodes with `framed(frame)` of an `ldmkit.Ported`; for any other caller, the adapter
    must have no effect. Pass `self.frame` to the layers (`ldmkit.PortedLinear`), and publish
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
        expect(acts or not s.trained, f"a different signal with a frame and a tap at {name!r}", "the same one")
    expect(bool(acting), "a different signal with a frame and a tap at some port", "the same one")
    same(flat(no_grad(lambda: s.signal(part, values))), base, "the signal after the taps were removed")
