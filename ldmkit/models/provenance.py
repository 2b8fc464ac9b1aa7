"""Where the parts of a pipeline come from: recorded when it is saved, compared when it is loaded. Free of torch."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from ldmkit.contracts.value import Value
from ldmkit.errors import LdmkitError, PluginError, SpecError, WeightsError
from ldmkit.models.spec import Defaults, PartSpec
from ldmkit.plugins.catalogue import catalogue, find
from ldmkit.plugins.installed import HOME, normal
from ldmkit.plugins.kinds import GROUPS

STRATEGIES = ("sampler", "grid", "guidance")
"""Kinds that a spec names among its defaults."""


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


def explained(error: PluginError, path: str, kind: str, spec: PartSpec) -> PluginError:
    """The error for a part that cannot be loaded, with the distribution and version recorded in its spec."""
    error.where = error.where or f"{path}.type"
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
    what = f"{path} needs {spec.type!r}, which {spec.distribution}{version} provides"
    if present is not None:
        what += f"; {spec.distribution} {present} is installed, and has no {kind} of that name"
    return PluginError("not-installed", what, where=path, fits=wanted)


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
