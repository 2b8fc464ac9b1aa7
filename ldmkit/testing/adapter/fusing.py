"""Checks of adapters that can be fused."""

from __future__ import annotations

import torch

from ldmkit.contracts.adapter import Fusable
from ldmkit.contracts.nn import layer_of
from ldmkit.testing.adapter.subject import NAME, AdapterSubject, plain
from ldmkit.testing.batches import close
from ldmkit.testing.checks import NotApplicable, check, expect
from ldmkit.testing.modules import ran


@check("adapter", "fused")
def fused(s: AdapterSubject) -> None:
    """A `Fusable` adapter gives the same results fused and attached, up to rounding, and takes no conditions.

    `delta(port, weight)` expresses what its tap adds to the layer's output as a change of the weight, of the weight's
    shape, with options such as a scale applied. It must not write to the weight.
    """
    part = s.make()
    able = isinstance(part, Fusable)
    if not able:
        raise NotApplicable("it is not an ldmkit.Fusable")
    expect(not part.slots, "no slots: an effect that depends on conditions cannot be fused", f"{list(part.slots)}")
    others = [port for port in part.taps(NAME) if not port.startswith(("linear.", "conv."))]
    expect(not others, "taps only at linear.<path> and conv.<path>", f"{others[:4]}")
    given = s.given(part)
    wanted = ran(s, part, given)
    host = s.host(part)
    for port in part.taps(NAME):
        layer = layer_of(host, host.ports, port)
        if layer is None:
            raise NotApplicable(f"{type(host).__name__} has no layer at {port!r}")
        before = layer.weight.detach().clone()
        with torch.no_grad():
            delta = part.delta(port, layer.weight.detach())
            expect(torch.equal(layer.weight, before), "the weight passed to delta unchanged", "it was written to")
            expect(
                delta.shape == before.shape, f"a delta of {tuple(before.shape)} at {port!r}", f"{tuple(delta.shape)}"
            )
            layer.weight = torch.nn.Parameter(before + delta, requires_grad=False)
            more = None if layer.bias is None else part.bias_delta(port, layer.bias.detach())
            if more is not None:
                layer.bias = torch.nn.Parameter(layer.bias + more, requires_grad=False)
    close([plain(host, given)], wanted, "F with the adapter in the weights", 1e-4)
