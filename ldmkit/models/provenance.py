"""Where the parts of a pipeline come from: recorded when it is saved, compared when it is loaded. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any, NamedTuple

from ldmkit.contracts.value import Value
from ldmkit.errors import LdmkitError, PluginError, SpecError, WeightsError
from ldmkit.models.spec import Defaults, PartSpec, PipelineSpec
from ldmkit.plugins.catalogue import catalogue, find, load_entry
from ldmkit.plugins.installed import HOME, Entry, normal
from ldmkit.plugins.kinds import GROUPS, MODULES

STRATEGIES = ("sampler", "grid", "guidance")
"""Kinds that a spec names among its defaults."""


class Named(NamedTuple):
    """A part of a spec: its path (`conditioners.text`), kind, and what the spec says of it."""

    path: str
    kind: str
    spec: PartSpec


def named_parts(spec: PipelineSpec) -> Iterator[Named]:
    """What cannot be left out of a pipeline, parts inside other parts' configs included."""
    singles = (("codec", spec.codec), ("denoiser", spec.denoiser), ("process", spec.process))
    listed = [Named(kind, kind, part) for kind, part in singles]
    listed += [Named(f"conditioners.{name}", "conditioner", part) for name, part in spec.conditioners.items()]
    listed += [Named(f"adapters.{name}", "adapter", part) for name, part in spec.adapters.items()]
    for one in listed:
        yield from with_inner(one)


def with_inner(part: Named) -> Iterator[Named]:
    """A part and those in its config, which are of the kind that the field is named after, or of its own kind."""
    yield part
    for key, value in part.spec.config.items():
        if (
            isinstance(value, Mapping)
            and isinstance(value.get("type"), str)
            and isinstance(value.get("config"), Mapping)
        ):
            kept = {name: value[name] for name in PartSpec.model_fields if name in value}
            yield from with_inner(Named(f"{part.path}.{key}", key if key in GROUPS else part.kind, PartSpec.of(kept)))


def stamped(kind: str, spec: PartSpec) -> PartSpec:
    """The same with the distribution and version that its name means now, and so for parts in its config."""
    try:
        entry = find(kind, spec.type, spec.distribution)
    except PluginError:
        return spec
    return spec.model_copy(update={"distribution": entry.dist, "version": entry.version})


def stamped_defaults(defaults: Defaults) -> Defaults:
    """Defaults whose sampler, grid and guidance say where they come from."""
    return defaults.model_copy(update={kind: stamped(kind, getattr(defaults, kind)) for kind in STRATEGIES})


def stamped_config(kind: str, config: Value, data: dict[str, Any]) -> dict[str, Any]:
    """A config as JSON data, in which parts say where they come from."""
    for key, value in config:
        if isinstance(value, PartSpec):
            data[key] = stamped(key if key in GROUPS else kind, value).model_dump(mode="json")
    return data


def resolve(kind: str, spec: PartSpec, where: str) -> Any:
    """The class that a spec means; where several distributions have the name, its own decides.

    Raises:
        PluginError: as `ldmkit.get`; and `not-installed`, naming the distribution and version to install.
    """
    try:
        return load_entry(find(kind, spec.type, spec.distribution))
    except PluginError as error:
        raise _explained(error, Named(where, kind, spec)) from error


def require(parts: Iterator[Named]) -> None:
    """Check that all parts can be loaded, and load their classes.

    Raises:
        PluginError: the first that cannot be; where several distributions are absent, it names them all.
    """
    problems: list[PluginError] = []
    for path, kind, spec in parts:
        try:
            resolve(kind, spec, path)
        except PluginError as error:
            problems.append(error)
    absent = [error for error in problems if error.code == "plugin.not-installed"]
    if len(absent) > 1:
        what = "; ".join(dict.fromkeys(error.what for error in absent))
        wanted = dict.fromkeys((error.fits or "").removeprefix("pip install ") for error in absent)
        raise PluginError("not-installed", what, fits=f"pip install {' '.join(wanted)}")
    if problems:
        raise (absent or problems)[0]


def _explained(error: PluginError, part: Named) -> PluginError:
    """With the distribution and version that the spec remembers."""
    error.where = error.where or f"{part.path}.type"
    spec = part.spec
    if spec.distribution is None:
        return error
    wanted = f"pip install {pinned(spec)}"
    version = f" {spec.version}" if spec.version else ""
    present = installed_version(spec.distribution)
    if present is not None and present == spec.version:
        return error  # the very version: the name was never there
    if error.code != "plugin.unknown":
        if present is not None:
            error.fits = f"{error.fits}; " if error.fits else ""
            error.fits += f"it was saved with {spec.distribution}{version}, {present} is installed: {wanted}"
        return error
    what = f"{part.path} needs {spec.type!r}, which {spec.distribution}{version} provides"
    if present is not None:
        what += f"; {spec.distribution} {present} is installed, and has no {part.kind} of that name"
    return PluginError("not-installed", what, where=part.path, fits=wanted)


def pinned(spec: PartSpec) -> str:
    """A distribution as pip is asked for it, in the version that was recorded."""
    exact = spec.version not in (None, "", "?")
    return f"{spec.distribution}=={spec.version}" if exact else str(spec.distribution)


def installed_version(distribution: str) -> str | None:
    """The version of a distribution that is installed, if it is."""
    found = {e.version for e in catalogue() if normal(e.dist) == normal(distribution)}
    if found:
        return found.pop()
    try:
        return metadata.version(distribution)
    except (metadata.PackageNotFoundError, ValueError):
        return None


def differences(
    parts: Iterator[Named], defaults: Defaults | None = None, released_with: str | None = None
) -> list[str]:
    """What changed since a spec was saved, one sentence a distribution.

    Args:
        defaults: strategies that may be absent; that is a sentence of its own.
        released_with: the distribution that the saved pipeline itself is part of: both are of one release.
    """
    changed: dict[str, list[str]] = {}
    absent: list[str] = []
    strategies = [] if defaults is None else [Named(f"defaults.{k}", k, getattr(defaults, k)) for k in STRATEGIES]
    for part in (*parts, *strategies):
        try:
            entry = find(part.kind, part.spec.type, part.spec.distribution)
        except PluginError as error:
            if part.spec.distribution is not None and part in strategies:
                problem = _explained(error, part)
                absent.append(f"{problem.what} ({problem.fits}); until then calls must name another {part.kind}")
            continue
        if part.spec.distribution is None or normal(part.spec.distribution) == normal(released_with or ""):
            continue
        if (then_now := _then_now(part.spec, entry)) is not None:
            changed.setdefault(then_now, []).append(_of_part(part, entry))
    return [f"{how} ({', '.join(parts)})" for how, parts in changed.items()] + absent


def _then_now(spec: PartSpec, entry: Entry) -> str | None:
    if normal(entry.dist) != normal(str(spec.distribution)):
        return f"{spec.distribution} {spec.version} when it was saved, {entry.dist} {entry.version} now"
    if spec.version not in (None, "", "?", entry.version):
        return f"{entry.dist} {spec.version} when it was saved, {entry.version} now"
    return None


def _of_part(part: Named, entry: Entry) -> str:
    """The path, with what its config lacks or has beside the fields of today's class."""
    cls = load_entry(entry)
    fields = (cls.Config if part.kind in MODULES else cls).model_fields
    new = [f"{name} = {field.default!r}" for name, field in fields.items() if name not in part.spec.config]
    gone = [repr(name) for name in part.spec.config if name not in fields]
    notes = [f"new in its config, and at the default: {', '.join(new)}"] if new and part.spec.config else []
    notes += [f"not in its config any more: {', '.join(gone)}"] if gone else []
    return f"{part.path}: {'; '.join(notes)}" if notes else part.path


def blame_version(error: LdmkitError, spec: PartSpec) -> None:
    """Add to an error of a part's config or weights that another version of its distribution wrote them."""
    if not isinstance(error, (SpecError, WeightsError)) or spec.distribution is None:
        return
    present = installed_version(spec.distribution)
    if present is None or spec.version in (None, "", "?", present):
        return
    said = f"{spec.distribution} {spec.version} wrote it, {present} is installed: pip install {pinned(spec)}"
    if normal(spec.distribution) == HOME:
        said = f"ldmkit {spec.version} wrote it, this is {present}: pip install {pinned(spec)}"
    error.fits = f"{error.fits}; {said}" if error.fits else said
