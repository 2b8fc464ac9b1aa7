"""Warnings about conditions, negatives and guidance without effect, derived from the views of the guidance."""

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
"""The weights of an unguided conditional estimate."""


def remark_guidance(request: Resolved, names: Sequence[str], absent: Collection[str], sigmas: Sequence[float]) -> None:
    """Warn about conditions that no view keeps, negatives that no view drops, and guidance without effect.

    Args:
        request: with parsed inputs and negatives.
        names: optional conditions of the model; `absent`: those of them that were not given.
        sigmas: noise levels of the run.
    """
    given = [name for name in names if name not in absent]
    levels = [sigma for sigma in sigmas if sigma > 0]
    if not given:
        return
    raw = [request.guidance.weights(names, sigma) for sigma in levels]
    known = [weights for weights in raw if weights is not None]
    if len(known) < len(raw):
        _without_weights(request, given)
        return
    seen = [_collapsed(weights, absent) for weights in known]
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
    """Warn about guidance stronger than the sampler supports."""
    most, scale = request.sampler.max_guidance, max(weights.get(frozenset(), 0.0) for weights in seen)
    if most is not None and scale > most:
        what = f"{part_name('sampler', request.sampler)} is designed for guidance scales up to {most:g}"
        warn(f"{what}; {scale:g} gives oversaturated colours and broken shapes")


def remark_adapters(parts: Parts, wiring: Mapping[str, ConditionerSpec], request: Resolved, run: Run) -> None:
    """Warn about adapters that are given none of their inputs, and those that have no effect although they are."""
    asked = {name for rows in (request.inputs, request.proposed) for row in rows for name in row}
    for name, adapter in parts.adapters.items():
        feeds = [one for one, slot in parts.routes.items() if slot.startswith(f"{name}.")]
        inputs = list(dict.fromkeys(input_name(one, wiring[one]) for one in feeds))
        if adapter.slots and not any(one in asked for one in inputs):
            warn(f"the adapter {name!r} is given none of its inputs ({_listed(inputs)}), and draws without them")
            continue
        if (why := adapter.idle(run)) is not None:
            warn(f"the adapter {name!r} has no effect: {why}")


def _conditions(request: Resolved, given: Sequence[str], acting: Collection[View]) -> None:
    asked = {name for rows in (request.inputs, request.proposed) for row in rows for name in row}
    unseen = [name for name in given if name in asked and all(name in view for view in acting)]
    if unseen:
        what = f"{_listed(unseen)} has no effect, because the guidance uses only estimates without it"
        warn(f"{what} (scale 1 means no guidance here; some other programs also use 0 for that)")


def _negatives(request: Resolved, acting: Collection[View]) -> None:
    asked = dict.fromkeys(name for row in request.negative for name in row)
    lost = [name for name in asked if not any(name in view for view in acting)]
    if lost and not any(acting):
        warn("the negative inputs have no effect without guidance (use a guidance scale above 1)")
    elif lost:
        what = f"the negative of {_listed(lost)} has no effect, because the guidance never drops that input"
        warn(f"{what} (give it a scale, or use one scale for all)")


def _equal(request: Resolved) -> None:
    """Warn about negatives that equal their input, which leaves guidance no direction."""
    pairs = list(zip(request.inputs, request.negative, strict=True))
    for name in dict.fromkeys(name for _, negative in pairs for name in negative):
        both = [(row[name], negative[name]) for row, negative in pairs if name in row and name in negative]
        if any(isinstance(value, str | int) and value == other for value, other in both):
            warn(f"the negative of {name!r} equals the input, so guidance has no effect")


def _idle(guidance: Guidance, names: Sequence[str], given: Sequence[str], levels: Sequence[float]) -> None:
    """Warn about options of a guidance that leaves the conditional estimate unchanged."""
    interval = getattr(guidance, "interval", None)
    always = guidance.model_copy(update={"interval": None}) if interval is not None else guidance
    weights = always.weights(names, levels[0]) or PLAIN
    options = [name for name in ("interval", "rescale") if getattr(guidance, name, None)]
    if interval is not None and _collapsed(weights, set(names) - set(given)) != PLAIN:
        what = f"none of the run's noise levels, {levels[0]:.4g} to {levels[-1]:.4g}, is in the guidance's interval"
        warn(f"{what} {tuple(interval)}: the guidance has no effect")
    elif weights != PLAIN:
        guided = sorted({name for view in weights for name in view})
        what = f"the guidance has scales for {_listed(guided)}, which is not given"
        warn(f"{what}: {_listed(given)} is used without guidance")
    elif options:
        warn(f"the guidance's {' and '.join(options)} has no effect with a scale of 1, which means no guidance")


def _without_weights(request: Resolved, given: Sequence[str]) -> None:
    """Warnings for guidance whose `weights` are unknown."""
    if getattr(request.guidance, "scale", None) == 0 and request.guidance.plain(0.0) is not None:
        _conditions(request, given, [frozenset(given)])
    elif request.guidance.views(given) == 1:
        _negatives(request, [frozenset()])


def _collapsed(weights: Weights, absent: Collection[str]) -> Weights:
    """Weights with views merged that differ only in absent conditions, without those of weight 0."""
    found: dict[View, float] = {}
    for view, factor in weights.items():
        seen = view - frozenset(absent)
        found[seen] = found.get(seen, 0.0) + factor
    return {view: 1.0 if abs(factor - 1) < 1e-9 else factor for view, factor in found.items() if abs(factor) > 1e-9}


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(repr, names))
