"""Checks of a denoiser's gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.ports import Gate, attached
from ldmkit.testing.batches import differ, same
from ldmkit.testing.checks import NotApplicable, check, expect
from ldmkit.testing.denoiser.subject import DenoiserSubject, Probe, jolt, with_probe


class Stores:
    """A tap that changes and stores the value of each window, and returns it from `skip` once it is told to.

    If a network is run patch by patch, caches tell its windows apart by the state of their adapter.
    """

    def __init__(self) -> None:
        self.values: dict[tuple[int, ...], Tensor] = {}
        self.gives = False
        self.seen, self.asked = Counter[tuple[int, ...]](), Counter[tuple[int, ...]]()

    def skip(self, frame: Any) -> Tensor | None:
        """See `ldmkit.GateTap`."""
        self.asked[_window(frame)] += 1
        return self.values.get(_window(frame)) if self.gives else None

    def __call__(self, value: Tensor, frame: Any) -> Tensor:
        self.seen[_window(frame)] += 1
        self.values[_window(frame)] = changed = jolt(value, frame)
        return changed

    @property
    def calls(self) -> str:
        """The largest numbers of calls of `skip` and of the tap itself."""
        return f"{max(self.asked.values(), default=0)}, {max(self.seen.values(), default=0)}"


def _window(frame: Any) -> tuple[int, ...]:
    return frame.context.adapters.get("probe", Probe()).window  # type: ignore[no-any-return]


def _called(part: Any, given: Mapping[str, Any]) -> Tensor:
    out: Tensor = part(given["x"], given["t"], with_probe(part.prepare(given["signals"])), None)
    return out


@check("denoiser", "gates")
def gates(s: DenoiserSubject) -> None:
    """A gate is consulted before what it guards is computed; a stored value replaces all of that, bit for bit.

    `h = self.gate.around(compute, frame)` does this. If a gate is not consulted, or its value is ignored, caches can
    attach but save nothing. In each call of the network a gate is consulted once, or once per window of the latents
    for which adapter states are cropped: caches store one value for each window.
    """
    part = s.make()
    names = [name for name, port in part.ports.items() if isinstance(port, Gate)]
    if not names:
        raise NotApplicable("it publishes no gates")
    given = s.given(part)
    with torch.no_grad():
        base = _called(part, given)
        for name in names:
            tap = Stores()
            with attached(part.ports, {name: tap}):
                whole = _called(part, given)
                expect(differ([whole], [base]), f"a different F with a tap at {name!r}", "the same F")
                once = tap.asked == tap.seen and set(tap.seen.values()) == {1}
                expect(once, f"`skip` and the tap at {name!r} called once per window", tap.calls)
                tap.gives = True
                tap.seen.clear()
                cut = _called(part, given)
                seen = tap.seen.total()
                expect(seen == 0, f"no call of the tap at {name!r} after `skip` returned a stored value", f"{seen}")
                same([cut], [whole], f"F with the stored value at {name!r}")
        same([_called(part, given)], [base], "F after the taps were removed")
