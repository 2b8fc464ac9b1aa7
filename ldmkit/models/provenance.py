"""Distributions and versions of a pipeline's parts, recorded when it is saved and compared when it is loaded. Does not
import torch."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from ldmkit.contracts.value import Value
from ldmkit.errors import LdmkitError, PluginError, SpecError, WeightsError
from ldmkit.models.spec import Defaults, PartSpec
from ldmkit.plugins.catalogue import catalogue, find
from ldmkit.plugins.installed import HOME, normal
from ldmkit.plugins.kinds import GROUPS
from ldmkit.plugins.local import how_to_use, is_parts_file

STRATEGIES = ("sampler", "grid", "guidance")
"""Kinds that a spec contains in its defaults."""


def stamped(kind: str, spec: PartSpec) -> PartSpec:
    """The spec with the distribution and version to which its name currently resolves."""
    try:
        entry = find(kind, spec.type, spec.distribution)
    except PluginError:
        return spec
    return spec.model_copy(update={"distribution": entry.dist, "version": entry.version})


def stamped_defaults(defaults: Defaults) -> Defaults:
    """The defaults with `stamped` sampler, grid and guidance."""
    return defaults.model_copy(update={kind: stamped(kind, getattr(defaults, kind)) for kind in STRATEGIES})


def stamped_config(kind: str, config: Value, data: dict[str, Any]) -> dict[str, Any]:
    """`data`, the JSON data of a config, with `stamped` specs of nested parts."""
    for key, value in config:
        if isinstance(value, PartSpec):
            data[key] = stamped(key if key in GROUPS else kind, value).model_dump(mode="json")
    return data


def explained(error: PluginError, path: str, kind: str, spec: PartSpec) -> PluginError:
    """The error for a part that cannot be loaded, with the distribution and version recorded in its spec."""
    error.where = error.where or f"{path}.type"
    if spec.distribution is None:
        return error
    wanted = remedy(spec)
    version = f" {spec.version}" if spec.version else ""
    present = installed_version(spec.distribution)
    if present is not None and present == spec.version:
        return error  # the recorded version is installed, so the name never existed
    if error.code != "plugin.unknown":
        if present is not None:
            error.fits = f"{error.fits}; " if error.fits else ""
            error.fits += f"it was saved with {spec.distribution}{version}, but {present} is installed: {wanted}"
        return error
    what = f"{path} requires {spec.type!r} from {spec.distribution}{version}"
    if present is not None:
        what += f"; the installed {spec.distribution} {present} has no {kind} of that name"
    return PluginError("not-installed", what, where=path, fits=wanted)


def remedy(spec: PartSpec) -> str:
    """How to get the recorded version of a part's distribution."""
    if is_parts_file(str(spec.distribution)):
        return how_to_use(str(spec.distribution), spec.version)
    return f"pip install {pinned(spec)}"


def pinned(spec: PartSpec) -> str:
    """The pip requirement for a part's distribution in its recorded version."""
    exact = spec.version not in (None, "", "?")
    return f"{spec.distribution}=={spec.version}" if exact else str(spec.distribution)


def installed_version(distribution: str) -> str | None:
    """The installed version of a distribution; None if it is not installed."""
    found = {e.version for e in catalogue() if normal(e.dist) == normal(distribution)}
    if found:
        return found.pop()
    try:
        return metadata.version(distribution)
    except (metadata.PackageNotFoundError, ValueError):
        return None


def blame_version(error: LdmkitError, spec: PartSpec) -> None:
    """Add a hint to an error about a part's config or weights if another version of its distribution wrote them."""
    if not isinstance(error, (SpecError, WeightsError)) or spec.distribution is None:
        return
    present = installed_version(spec.distribution)
    if present is None or spec.version in (None, "", "?", present):
        return
    hint = f"written by {spec.distribution} {spec.version}, but {present} is installed: {remedy(spec)}"
    if normal(spec.distribution) == HOME:
        hint = f"written by ldmkit {spec.version}, but this is {present}: pip install {pinned(spec)}"
    error.fits = f"{error.fits}; {hint}" if error.fits else hint
