"""What a denoiser promises of its gates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.ports import Gate, attached
from ldmkit.testing.batches import differ, same
from ldmkit.testing.checks import NotApplicable, check, expect
from ldmkit.testing.denoiser.subject import DenoiserSubject, call, jolt


class Stores:
    """A tap that changes and keeps what it sees, and gives that once it is told to."""

    def __init__(self) -> None:
        self.value: Tensor | None = None
        self.gives = False
        self.seen = self.asked = 0

    def skip(self, frame: Any) -> Tensor | None:
        """See `ldmkit.GateTap`."""
        self.asked += 1
        return self.value if self.gives else None

    def __call__(self, value: Tensor, frame: Any) -> Tensor:
        self.seen += 1
        self.value = jolt(value, frame)
        return self.value


@check("denoiser", "gates")
def gates(s: DenoiserSubject) -> None:
    """A gate is asked before what it guards is computed; a stored value stands for all of that, bit for bit.

    `h = self.gate.around(compute, frame)` does it. A gate that is not asked, or whose answer is computed over, lets
    caches attach and save nothing.
    """
    part = s.make()
    names = [name for name, port in part.ports.items() if isinstance(port, Gate)]
    if not names:
        raise NotApplicable("it publishes no gates")
    given = s.given(part)
    with torch.no_grad():
        base = call(part, given)
        for name in names:
            tap = Stores()
            with attached(part.ports, {name: tap}):
                whole = call(part, given)
                expect(differ([whole], [base]), f"another F with a tap at {name!r}", "the same F")
                expect(
                    (tap.asked, tap.seen) == (1, 1), f"{name!r} asked once and called once", f"{tap.asked}, {tap.seen}"
                )
                tap.gives = True
                cut = call(part, given)
                seen = tap.seen - 1
                expect(seen == 0, f"no call of {name!r} where it gave a stored value", f"{seen}")
                same([cut], [whole], f"F with the stored value at {name!r}")
        same([call(part, given)], [base], "F after the taps were taken off")
