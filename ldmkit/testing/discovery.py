"""Finds the checks of installed parts. Does not import torch until a part is loaded.

The suite of a kind is the module `ldmkit.testing.<kind>`: importing it registers the kind's checks, and its function
`subject(cls, example)` makes their subject from a part's class and one of its `examples`.
"""

from __future__ import annotations

from importlib import metadata

from ldmkit.errors import PluginError, suggest
from ldmkit.plugins.catalogue import Entry, catalogue
from ldmkit.plugins.installed import normal
from ldmkit.plugins.kinds import GROUPS
from ldmkit.testing.cases import Case as Case
from ldmkit.testing.cases import cases_of
from ldmkit.testing.checks import Report
from ldmkit.testing.checks import suite as suite


def check(entry: Entry) -> list[Report]:
    """Check an installed part: one report each for the class itself, its examples, and choices that they do not cover.

    Raises:
        PluginError: `no-suite`.
    """
    return [case.report() for case in cases(entry)]


def cases(entry: Entry) -> list[Case]:
    """The cases of an installed part. A part that cannot be loaded has a single case, which reports that.

    Raises:
        PluginError: `no-suite`.
    """
    return cases_of(entry)


def select(name: str) -> list[Entry]:
    """The installed parts that a name refers to: a distribution, `kind:name`, `dist:name`, or a part's name.

    A name that parts of several kinds have refers to all of them.

    Raises:
        PluginError: `unknown`; `no-parts`: the distribution is installed, but registers no part.
    """
    parts = [entry for entry in catalogue() if entry.kind in GROUPS]
    found = [entry for entry in parts if normal(entry.dist) == normal(name)]
    found = found or [e for e in parts if name in (f"{e.kind}:{e.name}", e.qualified, e.name)]
    if found:
        return found
    if (version := _version(name)) is not None:
        what = f"the distribution {name} {version} is installed, but registers no part"
        fits = f'[project.entry-points."{GROUPS["conditioner"]}"] in its pyproject.toml, then pip install it again; '
        fits += f"`ldmkit plugins doctor {name}` names entry points that cannot be used"
        raise PluginError("no-parts", what, fits=fits)
    close = suggest(name, {known for e in parts for known in (e.dist, f"{e.kind}:{e.name}")})
    dists = ", ".join(sorted({e.dist for e in parts}))
    fits = close if close.startswith("did") else f"distributions with parts: {dists}; is it installed?"
    raise PluginError("unknown", f"no distribution and no part is called {name!r}", fits=fits)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError):
        return None
