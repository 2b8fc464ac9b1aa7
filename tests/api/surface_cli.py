"""Commands, arguments and flags of the command line, in-tree commands and pytest's included; environment variables."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer
from surface_render import type_text, value_text
from typer.models import ArgumentInfo, OptionInfo

from ldmkit.cli.app import app
from ldmkit.plugins.catalogue import HOME, catalogue, load_entry
from ldmkit.testing import pytest_plugin

ROOT = Path(__file__).parents[2]


def commands() -> list[str]:
    """One line a command, argument or option, read from the functions behind them."""
    lines: list[str] = []
    for path, function in _tree():
        lines += [path, *(f"{path} {line}" for line in _parameters(function))]
    return [*lines, *_pytest(), *_environment()]


def _pytest() -> Iterator[str]:
    """Options of the kit's pytest plugin."""
    parser = pytest.Parser(_ispytest=True)
    pytest_plugin.pytest_addoption(parser)
    for option in parser.getgroup("ldmkit").options:
        yield f"pytest {', '.join(option.names())}: default {value_text(option.attrs().get('default'))}"


def _environment() -> Iterator[str]:
    """Variables that the source names."""
    roots = (ROOT / name for name in ("ldmkit", "plugins", "conditioners", "samplers"))
    texts = (path.read_text(encoding="utf-8") for root in roots for path in root.rglob("*.py"))
    named = {name for text in texts for name in re.findall(r'"(LDMKIT_[A-Z_]*[A-Z])"', text)}
    yield from (f"environment {name}" for name in sorted(named))


def _tree() -> Iterator[tuple[str, Any]]:
    own = dict(_below("ldmkit", app))
    for entry in catalogue():
        if entry.kind == "command" and entry.dist == HOME:
            own |= dict(_below(f"ldmkit {entry.name}", load_entry(entry)))
    yield from sorted(own.items())


def _below(path: str, group: typer.Typer) -> Iterator[tuple[str, Any]]:
    callback = group.registered_callback
    if callback is None and not group.registered_groups and len(group.registered_commands) == 1:
        yield path, group.registered_commands[0].callback  # typer makes the only command the whole of it
        return
    if callback is not None:
        yield path, callback.callback
    for command in group.registered_commands:
        name = command.name or str(getattr(command.callback, "__name__", "")).replace("_", "-")
        yield f"{path} {name}", command.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _below(f"{path} {inner.name or inner.typer_instance.info.name}", inner.typer_instance)


def _parameters(function: Any) -> Iterator[str]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        kind, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if isinstance(kind, type) and issubclass(kind, typer.Context):
            continue
        info = next((extra for extra in extras if isinstance(extra, (ArgumentInfo, OptionInfo))), None)
        facts = [type_text(kind)]
        if isinstance(info, (ArgumentInfo, OptionInfo)):
            facts += [f"{word} {bound}" for word in ("min", "max") if (bound := getattr(info, word)) is not None]
        required = parameter.default is parameter.empty
        default = (
            parameter.default if isinstance(parameter.default, (int, float, type(None))) else str(parameter.default)
        )
        facts.append("required" if required else f"default {value_text(default)}")
        yield f"{_shown(name, kind, info)}: {', '.join(facts)}"


def _shown(name: str, kind: Any, info: Any) -> str:
    if isinstance(info, ArgumentInfo):
        return name.upper()
    # inside Annotated the first name stands where a default would: typer moves it when it builds the command
    names = () if info is None else (info.default, *(info.param_decls or ()))
    if given := [flag for flag in names if isinstance(flag, str) and flag.startswith("-")]:
        return ", ".join(given)
    flag = "--" + name.replace("_", "-")
    return f"{flag}/--no-{flag[2:]}" if kind is bool else flag
