"""Parts in a single file that is not installed: `ldmkit_parts.py` in a working folder, used only when asked for.

Such a file is named by `ldmkit --parts FILE`, by the environment variable LDMKIT_PARTS or by `ldmkit.use_parts(FILE)`;
no file is ever executed because it lies somewhere. Its parts belong to a distribution with the file's name, whose
version is the beginning of the file's SHA-256, so that saved models and recipes record which file they need.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any

from ldmkit.errors import PluginError, shown
from ldmkit.plugins.installed import Entry
from ldmkit.plugins.kinds import GROUPS, contract_of

FILE = "ldmkit_parts.py"
"""The usual name. One in the working folder that nobody asked for is mentioned in errors about unknown parts."""

VARIABLE = "LDMKIT_PARTS"
"""Environment variable with the path of a parts file."""

_SHOWN = 12


@dataclass(frozen=True)
class PartsFile:
    """A parts file that was executed.

    Args:
        asked: by `use_parts`; otherwise its parts are in the catalogue while LDMKIT_PARTS names it.
    """

    path: Path
    version: str
    entries: tuple[Entry, ...]
    asked: bool


_used: dict[str, PartsFile] = {}
_lock = RLock()
_executing: list[Path] = []
forgetters: list[Callable[[], None]] = []
"""Called after a parts file was executed: a cache of loaded classes depends on it."""


def is_parts_file(dist: str) -> bool:
    """Whether the distribution that a part comes from is a parts file."""
    return dist.endswith(".py")


def local_entries() -> tuple[Entry, ...]:
    """Entries of the parts files in use, including the one that LDMKIT_PARTS names, which is executed once.

    Raises:
        PluginError: as `read_parts`.
    """
    named = os.environ.get(VARIABLE, "")
    if not (named or _used) or safe_mode():
        return ()
    if named and not _executing:
        read_parts(Path(named), asked=False)
    return tuple(entry for used in _used.values() if _is_in_use(used) for entry in used.entries)


def _is_in_use(used: PartsFile) -> bool:
    return used.asked or used.path == Path(os.environ.get(VARIABLE, "")).absolute()


def place_of(dist: str) -> Path | None:
    """The path of the parts file that a distribution stands for; None if it is an installed distribution."""
    used = _used.get(dist)
    return used.path if used is not None and _is_in_use(used) else None


def unused_file() -> Path | None:
    """A parts file in the working folder that nobody asked for."""
    path = Path.cwd() / FILE
    return path if place_of(FILE) is None and path.is_file() else None


def how_to_use(dist: str, version: str | None) -> str:
    """How to provide the parts file that a saved model or recipe records."""
    digest = f" with {version}" if version else ""
    return f"the file {dist}{digest}, given as `ldmkit --parts FILE` or ldmkit.use_parts(FILE)"


def use_parts(file: str | Path = FILE) -> list[str]:
    """Execute a Python file and register the parts that it defines, for the rest of this process.

    Every class of a kind with a public name is registered under that name in kebab case: `class EdgeMap(Conditioner)`
    as conditioner `edge-map`. A file that was changed may be given again. Saved pipelines and recipes record the
    file's name and the beginning of its SHA-256; loading them needs the file.

    Returns:
        What was registered, as `kind:name`.

    Raises:
        PluginError: `no-parts-file`: it cannot be read or is not a Python file; `disabled`: safe mode;
            `import-failed`; `module-taken`: another module has its name; `no-parts`; `name-taken`: two classes get the
            same name.
    """
    if not isinstance(file, str | Path):
        raise PluginError("no-parts-file", f"got {shown(file)}", where="file", fits="the path of a Python file")
    return [f"{entry.kind}:{entry.name}" for entry in read_parts(Path(file), asked=True).entries]


def read_parts(path: Path, *, asked: bool) -> PartsFile:
    """Execute a parts file unless its content is in use already; raises as `use_parts`."""
    if safe_mode():
        raise PluginError("disabled", "safe mode: in-tree parts only", where=str(path))
    path = path.absolute()
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise PluginError("no-parts-file", "it is not a Python module", where=str(path), fits="a file such as " + FILE)
    try:
        source = path.read_bytes()
    except OSError as error:
        what = f"it cannot be read: {error.strerror or error}"
        raise PluginError("no-parts-file", what, where=str(path), fits="an existing Python file") from error
    version = f"sha256:{hashlib.sha256(source).hexdigest()[:_SHOWN]}"
    with _lock:
        used = _used.get(path.name)
        if used is None or (used.path, used.version) != (path, version):
            used = _used[path.name] = PartsFile(path, version, _executed(path, source, version), asked)
            for forget in forgetters:
                forget()
        if asked and not used.asked:
            used = _used[path.name] = replace(used, asked=True)
        return used


def _executed(path: Path, source: bytes, version: str) -> tuple[Entry, ...]:
    """Execute a parts file as a module in `sys.modules` under the file's name; its entries."""
    name, before = path.stem, sys.modules.get(path.stem)
    if before is not None and (path.name not in _used or before.__file__ != str(_used[path.name].path)):
        what = f"a module {name!r} is imported already, from {getattr(before, '__file__', None)}"
        raise PluginError("module-taken", what, where=str(path), fits=f"another file name, such as {FILE}")
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        with _running(path), redirect_stdout(sys.stderr):  # stdout may be parsed by a program
            exec(compile(source, str(path), "exec"), module.__dict__)
        return _entries(module, path, version)
    except BaseException as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        if isinstance(error, KeyboardInterrupt) or (isinstance(error, PluginError) and error.where == str(path)):
            raise
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        fits = "a file that needs only what is installed" if isinstance(error, ModuleNotFoundError) else None
        what = f"{type(error).__name__}: {shown(str(error), 200)}{line}"
        raise PluginError("import-failed", what, where=str(path), fits=fits) from error


@contextmanager
def _running(path: Path) -> Iterator[None]:
    """While the file is executed its parts are not in the catalogue, which it may read."""
    _executing.append(path)
    try:
        yield
    finally:
        _executing.pop()


def _entries(module: ModuleType, path: Path, version: str) -> tuple[Entry, ...]:
    """An entry for each class of a kind that the module defines under a public name."""
    own = [thing for name, thing in vars(module).items() if _is_own(module, name, thing)]
    bases = {base for cls in own for base in cls.__mro__[1:]}
    entries = [
        Entry(kind, kebab_case(cls.__name__), f"{module.__name__}:{cls.__name__}", path.name, version)
        for kind in GROUPS
        for cls in own
        if issubclass(cls, contract_of(kind)) and not (inspect.isabstract(cls) and cls in bases)
    ]
    if not entries:
        fits = "a class such as class Swirl(ldmkit.Sampler), whose name does not begin with _"
        raise PluginError("no-parts", "it defines no class of a kind of part", where=str(path), fits=fits)
    for (kind, name), count in Counter((entry.kind, entry.name) for entry in entries).items():
        if count > 1:
            what = f"{count} classes of it are called {kind} {name!r}"
            raise PluginError("name-taken", what, where=str(path), fits="class names that differ")
    return tuple(entries)


def _is_own(module: ModuleType, name: str, thing: Any) -> bool:
    return inspect.isclass(thing) and thing.__module__ == module.__name__ and name == thing.__name__ and name[0] != "_"


def kebab_case(name: str) -> str:
    """The name of a part from that of its class: `EdgeMap` is `edge-map`, `HTTPMap` is `http-map`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def safe_mode() -> bool:
    """Whether the environment restricts the catalogue to in-tree parts."""
    return os.environ.get("LDMKIT_SAFE_MODE", "") not in ("", "0")
