"""Checks of adapters that tap gates: feature caches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.ports import Gate, GateTap, attached
from ldmkit.testing.adapter.subject import NAME, SIGMAS, AdapterSubject, plain, prepared
from ldmkit.testing.batches import differ, same
from ldmkit.testing.checks import NotApplicable, check, expect


def caches(part: Any) -> bool:
    """Whether an adapter taps gates, so that its effect shows over a run rather than in a single call."""
    return any(isinstance(tap, GateTap) for tap in part.taps(NAME).values())


def whole_run(s: AdapterSubject, part: Any) -> tuple[list[Tensor], list[Tensor]]:
    """F in a run of three calls with different inputs: with the adapter, and without."""
    host = s.host(part)
    calls: list[Mapping[str, Any]] = [s.drawn(part, host, seed) for seed in range(3)]
    bare = [plain(host, {**calls[0], "x": one["x"]}) for one in calls]
    with torch.no_grad(), attached(host.ports, part.taps(NAME)):
        context = prepared(host, {NAME: part}, calls[0])
        made = [host(one["x"], calls[0]["t"], context, sigma) for one, sigma in zip(calls, SIGMAS, strict=False)]
    return made, bare


@check("adapter", "caches")
def cached_runs(s: AdapterSubject) -> None:
    """An adapter that taps gates starts each run afresh: the first call is computed in full, and runs repeat exactly.

    Keep cached values in `frame.context.memory`, which is empty when a run begins. Taps with `skip` belong at gates:
    at other ports `skip` is never called.
    """
    part = s.make()
    if not caches(part):
        raise NotApplicable("it does not tap gates")
    host = s.host(part)
    astray = [
        p for p, tap in part.taps(NAME).items() if isinstance(tap, GateTap) and not isinstance(host.ports[p], Gate)
    ]
    expect(not astray, "taps with `skip` only at gates", f"{astray[:4]}")
    made, bare = whole_run(s, part)
    same(made[:1], bare[:1], "F of a run's first call")
    expect(differ(made, bare), "F to differ in some later call of a run", "the same F in all")
    same(whole_run(s, part)[0], made, "F along a second run")
