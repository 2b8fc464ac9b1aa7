"""Guarded import of plugins and the check against their contracts. Does not import torch until needed."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any
from warnings import warn

from ldmkit.errors import PluginError
from ldmkit.plugins.installed import Entry
from ldmkit.plugins.kinds import API, CONFIGURED, GROUPS, contract_of, oldest_api
from ldmkit.version import VERSION


class Meddling(UserWarning):
    """A plugin changed global torch settings while it was imported."""


def admit(entry: Entry) -> Any:
    """Import the object of an entry point and check it; every exception except KeyboardInterrupt is converted.

    This cannot guard against a plugin that ends the process (`os._exit`, a crash in C); `ldmkit plugins doctor`
    therefore examines plugins in separate processes.

    Raises:
        PluginError: with the entry, its distribution and version.
    """
    where = f"{entry.kind}:{entry.name} ({entry.dist} {entry.version}, {entry.value})"
    module = entry.value.partition(":")[0]
    if entry.kind in GROUPS:
        import_module("ldmkit.contracts.codec")  # imports torch, so that changes of its settings can be detected
    try:
        with _isolated(entry):
            loaded: Any = import_module(module)
        loaded = _attribute(entry, loaded, where)
    except (KeyboardInterrupt, PluginError):
        raise
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            fits = _nearest_module(entry, error.name)
            raise PluginError("import-failed", f"no module named {error.name!r}", where=where, fits=fits) from error
        what = f"requires {error.name!r}, which is not installed"
        raise PluginError("missing-dependency", what, where=where, fits=_provider(entry, error.name)) from error
    except BaseException as error:  # including SystemExit: a plugin must not end the program
        raise PluginError("import-failed", _message(error), where=where) from error
    try:
        _check(entry, loaded, where)
    except PluginError as error:
        error.where = where
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the plugin's metaclass or repr raised
        raise PluginError("import-failed", f"inspecting it raised {_message(error)}", where=where) from error
    return loaded


def _attribute(entry: Entry, loaded: Any, where: str) -> Any:
    """The object that an entry point refers to, in its imported module."""
    module, _, attribute = entry.value.partition(":")
    path = module
    for part in filter(None, attribute.split(".")):
        try:
            loaded = getattr(loaded, part)
        except AttributeError as error:
            names = [name for name in dir(loaded) if not name.startswith("__")]
            if part in names:  # it exists, but raised the AttributeError itself
                raise
            near = get_close_matches(part, names, 1)
            fits = f"did you mean '{module}:{attribute.replace(part, near[0], 1)}'?" if near else None
            raise PluginError("import-failed", f"{path} has no {part!r}", where=where, fits=fits) from error
        path += f".{part}" if path != module else f":{part}"
    return loaded


def _nearest_module(entry: Entry, absent: str) -> str | None:
    """A hint with the existing module, in the same package or at the top level, whose name is closest to `absent`."""
    package, _, last = absent.rpartition(".")
    if package:
        names = {found.name for found in iter_modules(getattr(sys.modules.get(package), "__path__", ()))}
    else:
        names = {found.name for found in iter_modules()}
    near = get_close_matches(last, names, 1, 0.75)
    if not near:
        return None
    name = f"{package}.{near[0]}" if package else near[0]
    return f"did you mean '{entry.value.replace(absent, name, 1)}'?"


def api_of(cls: type) -> int:
    """The contract version that a class was written against; 1 if it declares none.

    Raises:
        PluginError: `bad-api`: not a positive integer.
    """
    declared = next((vars(base)["api"] for base in cls.__mro__ if "api" in vars(base)), 1)
    if type(declared) is not int or declared < 1:
        raise PluginError("bad-api", f"{cls.__name__}.api is {declared!r}", fits="a positive integer, such as api = 1")
    return declared


def _check(entry: Entry, loaded: Any, where: str) -> None:
    if entry.kind in GROUPS:
        check_part(entry, loaded, where)
    elif entry.kind == "command":
        import typer

        if not isinstance(loaded, typer.Typer):
            raise PluginError("not-a-command", f"{_repr(loaded)} is not a command", where=where, fits="a typer.Typer")


def check_part(entry: Entry, loaded: Any, where: str) -> None:
    """Check what an entry point names against the contract of its kind.

    Raises:
        PluginError: `not-a-class`, `wrong-kind`, `bad-api`, `incompatible`, `abstract`, `bad-config`.
    """
    contract = contract_of(entry.kind)
    if not inspect.isclass(loaded):
        what = f"{_repr(loaded)} is not a class"
        raise PluginError("not-a-class", what, where=where, fits=f"a subclass of ldmkit.{contract.__name__}")
    if not issubclass(loaded, contract):
        what = f"{loaded.__name__} is not a subclass of ldmkit.{contract.__name__}"
        raise PluginError("wrong-kind", what, where=where, fits=_right_group(loaded))
    _check_api(entry, loaded, where)
    if inspect.isabstract(loaded):
        absent = ", ".join(sorted(getattr(loaded, "__abstractmethods__", ())))
        what = f"{loaded.__name__} does not implement {absent}"
        raise PluginError("abstract", what, where=where, fits=f"define {absent}")
    if entry.kind in CONFIGURED:
        _check_config(loaded, where)


def _check_api(entry: Entry, cls: type, where: str) -> None:
    declared, newest, oldest = api_of(cls), API[entry.kind], oldest_api(entry.kind)
    if oldest <= declared <= newest:
        return
    supported = f"version {newest}" if oldest == newest else f"versions {oldest} to {newest}"
    what = f"{cls.__name__} is written for version {declared} of the {entry.kind} contract"
    what += f"; ldmkit {VERSION} supports {supported}"
    package = entry.dist if declared < oldest else "ldmkit"
    raise PluginError("incompatible", what, where=where, fits=f"pip install --upgrade {package}")


def _check_config(cls: type, where: str) -> None:
    from ldmkit.contracts.value import Value

    config = getattr(cls, "Config", None)
    if not (inspect.isclass(config) and issubclass(config, Value)):
        what = f"{cls.__name__}.Config is {_repr(config)}"
        raise PluginError("bad-config", what, where=where, fits="a subclass of ldmkit.Value")


def _right_group(cls: type) -> str:
    """A hint with the entry-point group that the class belongs to."""
    kinds = [kind for kind in GROUPS if issubclass(cls, contract_of(kind))]
    return f"the entry-point group {GROUPS[kinds[0]]}" if kinds else "a class of the kind that the group is for"


def _provider(entry: Entry, module: str | None) -> str:
    """How to install a module: the matching requirement of the distribution if it declares one."""
    from importlib import metadata

    from ldmkit.plugins.installed import normal

    wanted = normal(str(module).split(".")[0])
    try:
        needs = [need.split(";")[0].strip() for need in metadata.requires(entry.dist) or ()]
    except Exception:  # unreadable metadata
        needs = []
    for need in needs:
        if normal(re.split(r"[^A-Za-z0-9._-]", need, maxsplit=1)[0]) == wanted:
            return f"pip install '{need}'"
    return f"pip install {wanted}, or the package that provides the module {module!r}"


@contextmanager
def _isolated(entry: Entry) -> Iterator[None]:
    """Redirect the output of an import to stderr (stdout may be parsed by a program) and restore torch's settings."""
    torch = sys.modules.get("torch")
    before = None if torch is None else _settings(torch)
    try:
        with redirect_stdout(sys.stderr), _with_numbers(torch):
            yield
    finally:
        if torch is not None and before is not None and before != (after := _settings(torch)):
            torch.set_default_dtype(before[0])
            torch.set_grad_enabled(before[1])
            torch.set_default_device(None if before[2] == "cpu" else before[2])
            text = f"{entry.dist} {entry.version} changed torch's defaults when {entry.value} was imported: "
            text += f"(dtype, gradients, device) changed from {before} to {after}; they have been restored"
            warn(text, Meddling, stacklevel=2)


def _with_numbers(torch: ModuleType | None) -> AbstractContextManager[Any]:
    """Tensors that a module makes while it is imported hold numbers, even if a part that is being built on the meta
    device imports it."""
    if torch is None or torch.get_default_device().type != "meta":
        return nullcontext()
    device: AbstractContextManager[Any] = torch.device("cpu")
    return device


def _settings(torch: ModuleType) -> tuple[Any, bool, str]:
    return torch.get_default_dtype(), torch.is_grad_enabled(), str(torch.get_default_device())


def _message(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # a faulty __str__
        text = "(its message cannot be read)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _repr(thing: object) -> str:
    try:
        text = repr(thing)
    except Exception:
        text = f"an object of {type(thing).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."
