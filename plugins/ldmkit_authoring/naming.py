"""The names in a new distribution, derived from the name of its part."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from dataclasses import dataclass
from importlib.util import find_spec

from ldmkit import InputError

LONGEST = 30
"""Maximum number of characters of a name, so that lines of the written files stay within the width."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
_OWN = "ldmkit"
RULE = f"lower-case letters, digits and single hyphens, a letter first, at most {LONGEST} characters"


@dataclass(frozen=True)
class Names:
    """The names that belong to a part called `name`.

    Args:
        name: in recipes, on the command line and as entry point: `cosine-ramp`.
        dist: the distribution, and its folder: `ldmkit-cosine-ramp`.
        package: `ldmkit_cosine_ramp`.
        module: in the package: `cosine_ramp`.
        cls: the class: `CosineRamp`.
    """

    name: str
    dist: str
    package: str
    module: str
    cls: str


def names_for(kind: str, name: str, taken: frozenset[str] = frozenset()) -> Names:
    """All names for a part of a kind.

    Args:
        taken: names that its module uses otherwise. A class of such a name gets the kind as a suffix.

    Raises:
        InputError: `part-name` (with a name that would fit), `package-taken`.
    """
    check_name(name)
    module = name.replace("-", "_")
    package = f"{_OWN}_{module}"
    cls = "".join(word.capitalize() for word in name.split("-"))
    if cls in taken or cls in dir(builtins):
        cls += kind.capitalize()
    if find_spec(package) is not None:
        what = f"a package {package} is installed already, and the new one would have the same name"
        raise InputError("package-taken", what, where=name, fits="another name, or uninstall it first")
    return Names(name, f"{_OWN}-{name}", package, module, cls)


def check_name(name: str) -> None:
    """Check that a name can be used for a part, a folder, a package and a module.

    Raises:
        InputError: `part-name`.
    """
    shown = f"{name[:60]!r}"
    if name.startswith(f"{_OWN}-") and _NAME.fullmatch(name):
        what = f"{shown}: the prefix `{_OWN}-` is added to the distribution's name automatically"
        raise InputError("part-name", what, where="NAME", fits=f"{suggestion(name)!r}, say")
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        fitting = suggestion(name)
        fits = RULE if fitting is None else f"{RULE}: {fitting!r}, say"
        raise InputError("part-name", f"{shown} cannot be the name of a part", where="NAME", fits=fits)
    if keyword.iskeyword(name.replace("-", "_")):
        what = f"{shown} is a Python keyword, and cannot be the name of a module"
        raise InputError("part-name", what, where="NAME", fits=f"{suggestion(name)!r}, say")


def suggestion(name: str) -> str | None:
    """A similar valid name; None if there is none."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", plain)
    fitting = re.sub(rf"^(?:[0-9-]+|{_OWN}-)+", "", "-".join(words).lower())[:LONGEST].rstrip("-")
    if keyword.iskeyword(fitting.replace("-", "_")):
        fitting += "-part"
    return fitting if _NAME.fullmatch(fitting) else None
