"""Lookup of the parts of a spec in the catalogue. Composing, loading and comparing versions use this table.

Does not import torch, unless the parts' modules do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ldmkit.errors import PluginError
from ldmkit.models.provenance import explained
from ldmkit.models.spec import PartSpec, PipelineSpec
from ldmkit.plugins.catalogue import find, load_entry
from ldmkit.plugins.installed import Entry
from ldmkit.plugins.kinds import GROUPS


class NamedPart(NamedTuple):
    """A part named in a spec.

    Args:
        path: `codec`, `conditioners.text`, ...; `codec.inner` for a part in the config of another.
        kind: kind of part.
        spec: its spec.
        inner: whether it is nested in another part's config and built by that part.
    """

    path: str
    kind: str
    spec: PartSpec
    inner: bool = False


class FoundPart(NamedTuple):
    """A `NamedPart` with its catalogue entry and class."""

    path: str
    kind: str
    spec: PartSpec
    inner: bool
    entry: Entry
    cls: Any


def find_parts(spec: PipelineSpec) -> list[FoundPart]:
    """All parts of a pipeline, including those nested in other parts' configs; imports their classes.

    Raises:
        PluginError: for the first part that cannot be loaded; if distributions are missing, it names all of them.
    """
    listed = [NamedPart(kind, kind, getattr(spec, kind)) for kind in ("codec", "denoiser", "process")]
    listed += [NamedPart(f"conditioners.{n}", "conditioner", part) for n, part in spec.conditioners.items()]
    listed += [NamedPart(f"adapters.{n}", "adapter", part) for n, part in spec.adapters.items()]
    return _found(one for part in listed for one in _with_inner(part))


def find_part(kind: str, spec: PartSpec, path: str) -> FoundPart:
    """One part, without nested ones. If several distributions use its name, the one in the spec is preferred.

    Raises:
        PluginError: as `ldmkit.get`, and `not-installed` with the distribution and version to install.
    """
    return _find(NamedPart(path, kind, spec))


def find_part_alone(kind: str, spec: PartSpec, path: str) -> list[FoundPart]:
    """One part, followed by those nested in its config; raises the errors of `find_parts`."""
    return _found(_with_inner(NamedPart(path, kind, spec)))


def _with_inner(part: NamedPart) -> Iterator[NamedPart]:
    """A part and those nested in its config; their kind is the field's name, or else the part's own kind."""
    yield part
    for key, value in part.spec.config.items():
        if (
            isinstance(value, Mapping)
            and isinstance(value.get("type"), str)
            and isinstance(value.get("config"), Mapping)
        ):
            spec = PartSpec.of({name: value[name] for name in PartSpec.model_fields if name in value})
            kind = key if key in GROUPS else part.kind
            yield from _with_inner(NamedPart(f"{part.path}.{key}", kind, spec, inner=True))


def _find(part: NamedPart) -> FoundPart:
    try:
        entry = find(part.kind, part.spec.type, part.spec.distribution)
        return FoundPart(*part, entry, load_entry(entry))
    except PluginError as error:
        raise explained(error, part.path, part.kind, part.spec) from error


def _found(parts: Iterable[NamedPart]) -> list[FoundPart]:
    found: list[FoundPart] = []
    problems: list[PluginError] = []
    for part in parts:
        try:
            found.append(_find(part))
        except PluginError as error:
            problems.append(error)
    missing = [error for error in problems if error.code == "plugin.not-installed"]
    if len(missing) > 1:
        what = "; ".join(dict.fromkeys(error.what for error in missing))
        remedies = list(dict.fromkeys(error.fits or "" for error in missing))
        installs = [one.removeprefix("pip install ") for one in remedies if one.startswith("pip install ")]
        wanted = [f"pip install {' '.join(installs)}"] if installs else []
        wanted += [one for one in remedies if not one.startswith("pip install ")]
        raise PluginError("not-installed", what, fits="; ".join(wanted))
    if problems:
        raise (missing or problems)[0]
    return found
