"""Composition: builds the parts of a spec on the meta device and checks them before any weights are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import ne
from typing import Any

from ldmkit.contracts.adapter import Adapter
from ldmkit.contracts.arguments import guarded, instance_of, mapping_of
from ldmkit.contracts.codec import Codec
from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.conditioner_abilities import Ported
from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.part import Part
from ldmkit.contracts.ports import hold_for
from ldmkit.contracts.process import Process
from ldmkit.contracts.signals import Slot
from ldmkit.contracts.value import Value
from ldmkit.errors import CompositionError, InputError, LdmkitError, PluginError, SpecError, shown, suggest
from ldmkit.models.abilities import able, warn_undeclared
from ldmkit.models.adapters import check_adapter
from ldmkit.models.found import FoundPart, find_part, find_parts
from ldmkit.models.latent_scale import check_latents_fit
from ldmkit.models.meta import on_meta
from ldmkit.models.provenance import blame_version, stamped_config
from ldmkit.models.routing import check_dims, route
from ldmkit.models.spec import ConditionerSpec, PartSpec, PipelineSpec, check_names
from ldmkit.plugins.catalogue import name_of, registered_name


@dataclass(frozen=True)
class Parts:
    """The modules of a pipeline and how they connect. `routes`: conditioner name -> slot name."""

    codec: Codec
    denoiser: Denoiser
    process: Process
    conditioners: dict[str, Conditioner]
    adapters: dict[str, Adapter]
    slots: dict[str, Slot]
    routes: dict[str, str]

    def items(self) -> dict[str, Part]:
        """Every module by its part path (`codec`, `conditioners.text`, ...)."""
        return {path: part for path, _, part in self.listed()}

    def listed(self) -> list[tuple[str, str, Part]]:
        """Path, kind and module of every part."""
        found: list[tuple[str, str, Part]] = [("codec", "codec", self.codec), ("denoiser", "denoiser", self.denoiser)]
        found += [(f"conditioners.{name}", "conditioner", part) for name, part in self.conditioners.items()]
        return found + [(f"adapters.{name}", "adapter", part) for name, part in self.adapters.items()]


def compose(
    spec: PipelineSpec, found: Sequence[FoundPart] | None = None, ready: Mapping[str, Part] | None = None
) -> Parts:
    """Build every part on the meta device and check that they fit.

    Args:
        found: the result of `find_parts(spec)`, if the caller already has it.
        ready: existing parts by path, which are not built.

    Raises:
        PluginError: a part is not installed; the message names the distribution recorded in the spec.
        SpecError: a part's config is invalid.
        CompositionError: two parts are incompatible; the message names both.
    """
    found = find_parts(spec) if found is None else found  # imports classes, which must not happen on the meta device
    outer = {part.path: part for part in found if not part.inner}
    process = outer.pop("process")
    with on_meta():
        there: Mapping[str, Any] = ready or {}
        made = {path: there[path] if path in there else module_of(part) for path, part in outer.items()}
    conditioners = {name: made[f"conditioners.{name}"] for name in spec.conditioners}
    adapters = {name: made[f"adapters.{name}"] for name in spec.adapters}
    return fit(spec.conditioners, made["codec"], made["denoiser"], value_of(process), conditioners, adapters)


def mapped_parts(
    codec: object, denoiser: object, process: object, conditioners: object, adapters: object
) -> tuple[dict[str, Conditioner], dict[str, Adapter]]:
    """The conditioners and adapters by name, after checking the types of all parts.

    Raises:
        InputError: `wrong-kind`, `not-a-mapping`.
    """
    for where, value, kind in (
        ("codec", codec, Codec),
        ("denoiser", denoiser, Denoiser),
        ("process", process, Process),
    ):
        instance_of(value, kind, where)
    given = mapping_of(conditioners, "conditioners", "name -> conditioner")
    added = mapping_of(adapters, "adapters", "name -> adapter")
    check_names([*given, *added])
    for name, part in given.items():
        instance_of(part, Conditioner, f"conditioners.{name}")
    for name, part in added.items():
        instance_of(part, Adapter, f"adapters.{name}")
    return given, added


def wired(given: Mapping[str, Conditioner], wiring: object) -> dict[str, ConditionerSpec]:
    """The spec of each conditioner, including the caller's wiring.

    Raises:
        InputError: `not-a-mapping`.
        CompositionError: `unknown-conditioner`: wiring for a conditioner that does not exist.
    """
    asked = mapping_of(wiring, "wiring", "conditioner name -> slot, null, input")
    for name in asked:
        if name not in given:
            what = f"wiring for {name!r}, which is not a conditioner of this pipeline"
            raise CompositionError("unknown-conditioner", what, where="wiring", fits=suggest(name, given))
    wires = {}
    for name, part in given.items():
        own, mine = part_spec("conditioner", part).model_dump(), asked.get(name)
        if isinstance(mine, ConditionerSpec):
            mine = mine.model_dump(exclude_unset=True)
        elif mine is not None:
            mine = _own_wiring(mapping_of(mine, f"wiring.{name}", "slot, null, input"), own, name)
        fields = mine or {}
        wires[name] = ConditionerSpec.of({**own, **fields, **own}, name)
    return wires


def _own_wiring(fields: dict[str, Any], own: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`fields`, checked not to contradict the part's own spec.

    Raises:
        CompositionError: `other-part`.
    """
    for key in fields:
        where = f"wiring.{name}"
        if key in own and guarded(partial(ne, fields[key], own[key]), where):
            what = f"{key} is {shown(fields[key])}, but the part has {shown(own[key])}"
            raise CompositionError("other-part", what, where=where, fits="slot, null, input, shares")
    return fields


def check_added(name: object, adapter: object, conditioners: object) -> None:
    """Check the types of the arguments of `with_adapter`.

    Raises:
        InputError: `name-type`, `wrong-kind`, `not-a-mapping`.
    """
    if not isinstance(name, str):
        raise InputError("name-type", f"got {shown(name)}", where="name", fits="a string")
    instance_of(adapter, Adapter, "adapter")
    for slot, part in mapping_of(conditioners, "conditioners", "slot -> conditioner").items():
        instance_of(part, Conditioner, f"conditioners.{slot}")


def fit(
    wiring: Mapping[str, ConditionerSpec],
    codec: Codec,
    denoiser: Denoiser,
    process: Process,
    conditioners: dict[str, Conditioner],
    adapters: dict[str, Adapter],
) -> Parts:
    """Route the conditioners of existing modules and check kinds, dims and channels."""
    if codec.channels != denoiser.channels:
        takes = f"denoiser {_type(denoiser)} takes {denoiser.channels}"
        what = f"codec {_type(codec)} has {codec.channels} latent channels, but {takes}"
        raise CompositionError("channel-mismatch", what, fits=f"a codec with {denoiser.channels} channels")
    _check_rank(codec, denoiser)
    check_latents_fit(codec, denoiser)
    slots = dict(denoiser.slots)
    for name, adapter in adapters.items():
        slots |= {f"{name}.{slot}": declared for slot, declared in adapter.slots.items()}
    routes: dict[str, str] = {}
    for name, conditioner in conditioners.items():
        warn_undeclared(conditioner)
        routes[name] = route(name, conditioner.kind, wiring[name].slot, slots)
    check_dims([(name, slot, conditioners[name].dim) for name, slot in routes.items()], slots)
    for name, adapter in adapters.items():
        for port in adapter.taps(name):
            if port not in denoiser.ports:
                lacks = f"denoiser {_type(denoiser)} has no such port"
                what = f"adapter {name!r} ({_type(adapter)}) taps port {port!r}, but {lacks}"
                raise CompositionError("unknown-port", what, fits=suggest(port, denoiser.ports))
        check_adapter(name, adapter, denoiser)
        _check_conditioner_taps(name, adapter, conditioners)
    _check_shares(wiring)
    return Parts(codec, denoiser, process, conditioners, adapters, slots, routes)


def _check_conditioner_taps(name: str, adapter: Adapter, conditioners: Mapping[str, Conditioner]) -> None:
    for where, taps in adapter.conditioner_taps(name).items():
        if where not in conditioners:
            what = f"adapter {name!r} ({_type(adapter)}) taps the conditioner {where!r}, which does not exist"
            raise CompositionError("unknown-conditioner", what, fits=suggest(where, conditioners))
        ported = able(conditioners[where], Ported)
        ports = {} if ported is None else ported.ports
        for port in taps:
            if port not in ports:
                lacks = f"conditioner {where!r} ({_type(conditioners[where])}) has no such port"
                what = f"adapter {name!r} ({_type(adapter)}) taps port {port!r}, but {lacks}"
                raise CompositionError("unknown-port", what, fits=suggest(port, ports))


def hold_adapters(owner: object, parts: Parts) -> None:
    """Attach the adapters' taps for as long as `owner` lives."""
    for name, adapter in parts.adapters.items():
        hold_for(owner, parts.denoiser.ports, adapter.taps(name))
        for where, taps in adapter.conditioner_taps(name).items():
            ported = able(parts.conditioners[where], Ported)
            assert ported is not None, "checked by `fit`"
            hold_for(owner, ported.ports, taps)


def _check_rank(codec: Codec, denoiser: Denoiser) -> None:
    axes = codec.axes
    if len(axes) != denoiser.latent_axes:
        names = ", ".join(axis.name for axis in axes) or "no axes"
        takes = f"denoiser {_type(denoiser)} takes {denoiser.latent_axes}"
        what = f"codec {_type(codec)} has latents with {len(axes)} axes ({names}), but {takes}"
        raise CompositionError("rank-mismatch", what, fits=f"a codec with {denoiser.latent_axes} axes")


def build(kind: str, spec: PartSpec, where: str) -> Any:
    """One module from its spec, on the current default device."""
    return module_of(find_part(kind, spec, where))


def module_of(part: FoundPart) -> Any:
    """The module of a located part, on the current default device."""
    spec = part.spec
    try:
        return part.cls(part.cls.Config.of(spec.config, f"{part.path}.config"))
    except LdmkitError as error:
        blame_version(error, spec)
        raise
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise CompositionError("cannot-build", f"{spec.type} refused its config: {error}", where=part.path) from error


def build_value(kind: str, spec: PartSpec, where: str | None = None) -> Any:
    """A strategy or data source from its spec; `where` is the spec's path in errors (default: the kind's name)."""
    return value_of(find_part(kind, spec, where or kind))


def value_of(part: FoundPart) -> Any:
    """The strategy or data source of a located part."""
    spec, where = part.spec, f"{part.path}.config"
    try:
        return part.cls.of(spec.config, where)
    except SpecError as error:
        blame_version(error, spec)
        raise
    except TypeError as error:  # a field of an abstract kind, given as plain data
        raise SpecError("invalid", f"{spec.type} refused its config: {error}", where=where) from error


def part_spec(kind: str, part: Part | Value) -> PartSpec:
    """The spec of an existing part: its registered name, config, distribution and version.

    A class without an entry point is named `module:Class`; such a part can be composed and run, but not loaded.
    """
    config = part.config if isinstance(part, Part) else part
    # None is kept, because a field with another default would be read back as that default
    data = stamped_config(kind, config, config.model_dump(mode="json"))
    try:
        entry = name_of(kind, type(part))
    except PluginError:
        return PartSpec(type=f"{type(part).__module__}:{type(part).__qualname__}", config=data)
    return PartSpec(type=registered_name(entry), config=data, distribution=entry.dist, version=entry.version)


def _check_shares(wiring: Mapping[str, ConditionerSpec]) -> None:
    for name, spec in wiring.items():
        if spec.shares is None:
            continue
        if spec.shares not in wiring or spec.shares == name or wiring[spec.shares].shares is not None:
            what = f"conditioner {name!r} shares the weights of {spec.shares!r}, which has no weights of its own"
            raise CompositionError("unknown-share", what, fits=suggest(spec.shares, [n for n in wiring if n != name]))


def _type(part: Part) -> str:
    return type(part).__name__
