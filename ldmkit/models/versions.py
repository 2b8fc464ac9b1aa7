"""Differences between the distributions recorded in a saved spec and those installed."""

from __future__ import annotations

from collections.abc import Iterable

from ldmkit.errors import PluginError
from ldmkit.models.found import FoundPart
from ldmkit.models.provenance import STRATEGIES, explained
from ldmkit.models.spec import Defaults, PartSpec
from ldmkit.plugins.catalogue import find, load_entry
from ldmkit.plugins.installed import Entry, normal
from ldmkit.plugins.kinds import MODULES


def differences(
    parts: Iterable[FoundPart], defaults: Defaults | None = None, released_with: str | None = None
) -> list[str]:
    """Version differences since a spec was saved, one sentence per distribution.

    Args:
        defaults: also compare its strategies; one that is not installed gets a separate sentence.
        released_with: the distribution that bundles the saved pipeline, which is not compared.
    """
    known = [(part.path, part.kind, part.spec, part.entry) for part in parts]
    missing: list[str] = []
    for kind in STRATEGIES if defaults is not None else ():
        path, spec = f"defaults.{kind}", getattr(defaults, kind)
        try:
            known.append((path, kind, spec, find(kind, spec.type, spec.distribution)))
        except PluginError as error:
            if spec.distribution is not None:
                problem = explained(error, path, kind, spec)
                missing.append(f"{problem.what} ({problem.fits}); until then calls must name another {kind}")
    changed: dict[str, list[str]] = {}
    for path, kind, spec, entry in known:
        if spec.distribution is None or normal(spec.distribution) == normal(released_with or ""):
            continue
        if (then_now := _then_now(spec, entry)) is not None:
            changed.setdefault(then_now, []).append(_with_fields(path, kind, spec, entry))
    return [f"{how} ({', '.join(paths)})" for how, paths in changed.items()] + missing


def _then_now(spec: PartSpec, entry: Entry) -> str | None:
    if normal(entry.dist) != normal(str(spec.distribution)):
        return f"saved with {spec.distribution} {spec.version}, loaded with {entry.dist} {entry.version}"
    if spec.version not in (None, "", "?", entry.version):
        return f"saved with {entry.dist} {spec.version}, loaded with {entry.version}"
    return None


def _with_fields(path: str, kind: str, spec: PartSpec, entry: Entry) -> str:
    """The path, with the fields that were added to or removed from the class since its config was saved."""
    cls = load_entry(entry)
    fields = (cls.Config if kind in MODULES else cls).model_fields
    new = [f"{name} = {field.default!r}" for name, field in fields.items() if name not in spec.config]
    gone = [repr(name) for name in spec.config if name not in fields]
    notes = [f"new fields at their defaults: {', '.join(new)}"] if new and spec.config else []
    notes += [f"removed fields: {', '.join(gone)}"] if gone else []
    return f"{path}: {'; '.join(notes)}" if notes else path
