"""What an adapter promises that can be fused."""

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
    """A `Fusable` one yields the same added to the weights as attached, up to rounding, and takes no conditions.

    `delta(port, weight)` is what its tap adds to the layer's output, as a matrix of the weight's shape: options such as
    a scale are in it. It must not write to the weight.
    """
    part = s.make()
    able = isinstance(part, Fusable)
    if not able:
        raise NotApplicable("it is no ldmkit.Fusable")
    expect(not part.slots, "no slots: what depends on conditions is in no weight", f"{list(part.slots)}")
    others = [port for port in part.taps(NAME) if not port.startswith(("linear.", "conv."))]
    expect(not others, "taps at linear.<path> and conv.<path> alone", f"{others[:4]}")
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
            expect(torch.equal(layer.weight, before), "the weight that delta gets as it was", "it was written to")
            expect(
                delta.shape == before.shape, f"a delta of {tuple(before.shape)} at {port!r}", f"{tuple(delta.shape)}"
            )
            layer.weight = torch.nn.Parameter(before + delta, requires_grad=False)
            more = None if layer.bias is None else part.bias_delta(port, layer.bias.detach())
            if more is not None:
                layer.bias = torch.nn.Parameter(layer.bias + more, requires_grad=False)
    close([plain(host, given)], wanted, "F with the adapter in the weights", 1e-4)
