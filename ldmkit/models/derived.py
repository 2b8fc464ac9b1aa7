"""Derived pipelines: some parts or defaults replaced, everything else kept, including the wiring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit.contracts.adapter import Adapter
from ldmkit.contracts.arguments import mapping_of
from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.step import Network
from ldmkit.contracts.value import Value
from ldmkit.errors import CompositionError, InputError, suggest
from ldmkit.models.adapters import check_free
from ldmkit.models.compose import Parts, check_added, fit, mapped_parts, part_spec, wired
from ldmkit.models.composed import Composed
from ldmkit.models.placement import Placement
from ldmkit.models.placing import placed_parts
from ldmkit.models.spec import ConditionerSpec, Defaults, PartSpec, check_names

PARTS = ("codec", "denoiser", "process", "conditioners", "wiring")
STRATEGIES = ("sampler", "grid", "guidance")


def derived(one: Composed, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of a pipeline that differs from `one` in these parts and defaults; see `Pipeline.with_`.

    Raises:
        InputError: `unknown-argument`, `not-a-mapping`, `wrong-kind`.
        CompositionError: `unknown-conditioner`; two parts are incompatible.
    """
    known = (*PARTS, *Defaults.model_fields)
    for name in changes:
        if name not in known:
            what = f"unknown argument {name!r}"
            raise InputError("unknown-argument", what, where=name, fits=suggest(name, known))
    conditioners, wiring = _conditioners(one, changes)
    codec, denoiser, process = (changes.get(name, getattr(one, name)) for name in ("codec", "denoiser", "process"))
    given, adapters = mapped_parts(codec, denoiser, process, conditioners, one.adapters)
    wires = wired(given, wiring)
    parts = fit(wires, codec, denoiser, process, given, adapters)
    kept = kept_placed(one, parts, wires)
    return {
        **kept,
        "wiring": wires,
        "defaults": _defaults(one.defaults, changes),
        "network": replanned(one, kept["parts"]),
        "plan": one.plan,
        "merged": one.merged if denoiser is one.denoiser else (),
    }


def extended(
    one: Composed,
    name: str,
    adapter: Adapter,
    conditioners: Mapping[str, Conditioner],
    inputs: Mapping[str, str] | None = None,
    shares: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Constructor arguments of a pipeline with one more adapter than `one`; see `with_adapter`.

    Args:
        inputs: slot -> name of the input that fills it; without it, that of the conditioner.
        shares: slot -> conditioner of the pipeline whose weights its conditioner reads.
    """
    check_added(name, adapter, conditioners)
    added = {f"{name}-{slot}" if len(conditioners) > 1 else name: part for slot, part in conditioners.items()}
    asked, shared = inputs or {}, shares or {}
    check_names([name])
    check_free({name, *added, *asked.values()}, one.adapters, one.wiring)
    wiring = dict(one.wiring)
    for slot, (key, part) in zip(conditioners, added.items(), strict=True):
        own = part_spec("conditioner", part).model_dump()
        wires = {"slot": f"{name}.{slot}", "null": "keep", "input": asked.get(slot), "shares": shared.get(slot)}
        wiring[key] = ConditionerSpec.of({**own, **wires}, key)
    both = {**one.adapters, name: adapter}
    parts = fit(wiring, one.codec, one.denoiser, one.process, {**one.conditioners, **added}, both)
    placed = kept_placed(one, parts, wiring)
    kept = {"defaults": one.defaults, "network": one.network, "plan": one.plan, "merged": one.merged}
    return {**placed, "wiring": wiring, **kept}


def kept_placed(one: Composed, parts: Parts, wiring: Mapping[str, ConditionerSpec] | None = None) -> dict[str, Any]:
    """Parts of a pipeline derived from `one`, new ones placed as `one` places parts of their names."""
    if one.placement == Placement():
        return {"parts": parts, "placement": one.placement, "rounded": {}}
    where = one.placement.model_copy(update={"device": str(one.denoiser.device)})
    placed, rounded = placed_parts(parts, one.wiring if wiring is None else wiring, where, strict=False)
    now, before = parts.items(), one.parts.items()
    same = {path: fields for path, fields in one.rounded.items() if now.get(path) is before.get(path)}
    return {"parts": placed, "placement": one.placement, "rounded": {**same, **rounded}}


def replanned(one: Composed, parts: Parts) -> Network | None:
    """The network to call of a pipeline derived from `one`, by the same plan.

    Raises:
        CompositionError: `plan-placed`.
    """
    if one.network is None or parts.denoiser is one.denoiser:
        return one.network
    check_plan(parts.denoiser, one.plan)
    return parts.denoiser.plan(one.plan)


def check_plan(denoiser: Denoiser, plan: object) -> None:
    """Refuse a plan made of weights that are not always there; other names are the denoiser's to refuse.

    Raises:
        CompositionError: `plan-placed`.
    """
    if denoiser.placed is not None and plan in denoiser.plans and plan != "eager":
        what = f"the plan {plan!r} is made of the network's weights, which this placement keeps elsewhere"
        fits = "plan 'eager', or a placement that leaves the denoiser where it is"
        raise CompositionError("plan-placed", what, where="plan", fits=fits)


def check_exact(rounded: Mapping[str, Mapping[str, str]], verb: str) -> None:
    """Refuse to go on from numbers that a placement has changed.

    Args:
        verb: what was to be done.

    Raises:
        CompositionError: `placed-rounded`.
    """
    for path, fields in rounded.items():
        said = ", ".join(f"{field} {value}" for field, value in fields.items())
        what = f"the placement keeps {path} in {said}, and the weights that it was made from are not here"
        fits = f"{verb} the pipeline that this one was placed from, then placed(...)"
        raise CompositionError("placed-rounded", what, where=path, fits=fits)


def _conditioners(one: Composed, changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The conditioners and wiring after the changes: replaced, added or removed (None) by name."""
    given = mapping_of(changes.get("conditioners", {}), "conditioners", "name -> conditioner, or None to remove it")
    for name, part in given.items():
        if part is None and name not in one.conditioners:
            what = f"there is no conditioner {name!r} to remove"
            raise CompositionError("unknown-conditioner", what, fits=suggest(name, one.conditioners))
    parts = {name: part for name, part in {**one.conditioners, **given}.items() if part is not None}
    kept = {name: one.wiring[name].wiring for name in parts if name in one.wiring}
    asked = mapping_of(changes.get("wiring", {}), "wiring", "conditioner name -> slot, null, input")
    return parts, {**kept, **asked}


def _defaults(own: Defaults, changes: Mapping[str, Any]) -> Defaults:
    fields = {key: value for key, value in own.model_dump(exclude_unset=True).items() if key not in changes}
    for key in Defaults.model_fields:
        if key not in changes:
            continue
        value = changes[key]
        if key in STRATEGIES and isinstance(value, Value) and not isinstance(value, PartSpec):
            value = part_spec(key, value)
        elif key in STRATEGIES and isinstance(value, str):
            value = PartSpec(type=value)
        fields[key] = value
    return Defaults.of(fields, "defaults")
