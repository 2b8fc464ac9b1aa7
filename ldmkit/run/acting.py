"""What of a call's conditions, negatives and guidance cannot act, asked by name from the views that guidance forms."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ldmkit.contracts.guidance import Guidance, View
from ldmkit.contracts.step import Run
from ldmkit.errors import warn
from ldmkit.models.compose import Parts
from ldmkit.models.spec import ConditionerSpec
from ldmkit.run.guards import part_name
from ldmkit.run.inputs import input_name
from ldmkit.run.request import Resolved

Weights = Mapping[View, float]

PLAIN: Weights = {frozenset(): 1.0}
"""The conditional estimate as it is."""


def remark_guidance(request: Resolved, names: Sequence[str], absent: Collection[str], sigmas: Sequence[float]) -> None:
    """Warn of conditions that no view of the guidance keeps, negatives that none drops, and guidance of nothing.

    Args:
        request: its inputs and negatives parsed.
        names: conditions of the model that may be left out; `absent`: those of them that nobody gave.
        sigmas: of the run.
    """
    given = [name for name in names if name not in absent]
    levels = [sigma for sigma in sigmas if sigma > 0]
    if not given:
        return
    raw = [request.guidance.weights(names, sigma) for sigma in levels]
    told = [weights for weights in raw if weights is not None]
    if len(told) < len(raw):
        _of_numbers(request, given)
        return
    seen = [_collapsed(weights, absent) for weights in told]
    acting = {view for weights in seen for view in weights}
    _excessive(request, seen)
    _equal(request)
    if "unconditional" in request.sampler.needs:
        acting.add(frozenset(names))
    _conditions(request, given, acting)
    _negatives(request, acting)
    if all(weights == PLAIN for weights in seen):
        _idle(request.guidance, names, given, levels)


def _excessive(request: Resolved, seen: Sequence[Weights]) -> None:
    """Warn of guidance stronger than the sampler is made for."""
    most, scale = request.sampler.max_guidance, max(weights.get(frozenset(), 0.0) for weights in seen)
    if most is not None and scale > most:
        what = f"{part_name('sampler', request.sampler)} is made for guidance scales up to {most:g}"
        warn(f"{what}: with {scale:g} colours oversaturate and shapes break")


def remark_adapters(parts: Parts, wiring: Mapping[str, ConditionerSpec], request: Resolved, run: Run) -> None:
    """Warn of adapters that change nothing in a run although what they read is given."""
    asked = {name for rows in (request.inputs, request.proposed) for row in rows for name in row}
    for name, adapter in parts.adapters.items():
        feeds = [one for one, slot in parts.routes.items() if slot.startswith(f"{name}.")]
        if adapter.slots and not any(input_name(one, wiring[one]) in asked for one in feeds):
            continue
        if (why := adapter.idle(run)) is not None:
            warn(f"the adapter {name!r} has no effect: {why}")


def _conditions(request: Resolved, given: Sequence[str], acting: Collection[View]) -> None:
    asked = {name for rows in (request.inputs, request.proposed) for row in rows for name in row}
    unseen = [name for name in given if name in asked and all(name in view for view in acting)]
    if unseen:
        what = f"the guidance draws without {_listed(unseen)}: what is asked for has no effect"
        warn(f"{what} (a scale of 1 follows it without guidance, which other programs write as 0 or 1)")


def _negatives(request: Resolved, acting: Collection[View]) -> None:
    asked = dict.fromkeys(name for row in request.negative for name in row)
    lost = [name for name in asked if not any(name in view for view in acting)]
    if lost and not any(acting):
        warn("nothing is guided, so that the negative inputs have no effect (a guidance scale above 1)")
    elif lost:
        what = f"the negative of {_listed(lost)} has no effect: the guidance never leaves that out"
        warn(f"{what} (a scale of its own, or one scale for all)")


def _equal(request: Resolved) -> None:
    """Warn of negatives that are what is asked for: there is no difference to move along."""
    pairs = list(zip(request.inputs, request.negative, strict=True))
    for name in dict.fromkeys(name for _, negative in pairs for name in negative):
        both = [(row[name], negative[name]) for row, negative in pairs if name in row and name in negative]
        if any(isinstance(value, str | int) and value == other for value, other in both):
            warn(f"the negative of {name!r} is what is asked for: guidance has nothing to move away from")


def _idle(guidance: Guidance, names: Sequence[str], given: Sequence[str], levels: Sequence[float]) -> None:
    """Warn of options of a guidance that leaves the conditional estimate as it is."""
    interval = getattr(guidance, "interval", None)
    always = guidance.model_copy(update={"interval": None}) if interval is not None else guidance
    weights = always.weights(names, levels[0]) or PLAIN
    options = [name for name in ("interval", "rescale") if getattr(guidance, name, None)]
    if interval is not None and _collapsed(weights, set(names) - set(given)) != PLAIN:
        what = f"none of the run's noise levels, {levels[0]:.4g} to {levels[-1]:.4g}, is in the guidance's interval"
        warn(f"{what} {tuple(interval)}: nothing is guided")
    elif weights != PLAIN:
        guided = sorted({name for view in weights for name in view})
        what = f"the guidance has scales for {_listed(guided)}, which is not given"
        warn(f"{what}: {_listed(given)} is followed without guidance")
    elif options:
        warn(f"a scale of 1 guides nothing: {' and '.join(options)} of the guidance has no effect")


def _of_numbers(request: Resolved, given: Sequence[str]) -> None:
    """What can be said of guidance that does not tell its weights."""
    if getattr(request.guidance, "scale", None) == 0 and request.guidance.plain(0.0) is not None:
        _conditions(request, given, [frozenset(given)])
    elif request.guidance.views(given) == 1:
        _negatives(request, [frozenset()])


def _collapsed(weights: Weights, absent: Collection[str]) -> Weights:
    """Views that differ only in conditions that nobody gave as one, those that count."""
    found: dict[View, float] = {}
    for view, factor in weights.items():
        seen = view - frozenset(absent)
        found[seen] = found.get(seen, 0.0) + factor
    return {view: 1.0 if abs(factor - 1) < 1e-9 else factor for view, factor in found.items() if abs(factor) > 1e-9}


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(repr, names))
