"""docs/stability.md says what the code does."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path

import pytest
import snapshot

import ldmkit
from ldmkit.plugins import deprecation
from ldmkit.plugins.kinds import API, GROUPS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "stability.md").read_text(encoding="utf-8")
VALUES = {"Signal"}
"""Handed to plugins and made by them as well: the four signals, which are data."""
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_pages_code_runs(number: int) -> None:
    with warnings.catch_warnings():
        exec(compile(BLOCKS[number], f"docs/stability.md block {number}", "exec"), {"__name__": "page"})


def test_all_snapshots_are_named() -> None:
    assert {f"{name}.txt" for name in snapshot.SNAPSHOTS} == set(re.findall(r"`(\w+\.txt)`", PAGE))
    assert snapshot.ACCEPT in PAGE


def test_every_contract_is_on_one_side() -> None:
    implement, receive = (
        set(re.findall(r"`([A-Z]\w+)`", part)) for part in re.findall(r"You \*\*\w+\*\* (.*?)(?=\n- |\n\n)", PAGE, re.S)
    )
    assert {kind.capitalize() for kind in GROUPS} <= implement
    assert implement.isdisjoint(receive) and {*implement, *receive} <= set(ldmkit.__all__)
    classes = {name: value for name in ldmkit.__all__ if inspect.isclass(value := getattr(ldmkit, name))}
    abstract = {name for name, value in classes.items() if inspect.isabstract(value)}
    protocols = {name for name, value in classes.items() if getattr(value, "_is_protocol", False)}
    assert implement - protocols == abstract, "a public class with abstract methods is one that plugins implement"
    assert protocols <= implement | receive
    taken, given = ({word for name in abstract for word in _named(classes[name], where)} for where in (True, False))
    assert given & protocols <= implement, "what plugins' methods return, plugins implement"
    assert taken - implement - VALUES <= receive, "what plugins' methods are handed is on the page"


def _named(cls: type, parameters: bool) -> set[str]:
    """Public names in the parameters, or in the results, of a contract's public methods."""
    methods = [
        inspect.signature(method)
        for name, method in inspect.getmembers(cls, inspect.isfunction)
        if (name == "__call__" or name[0] != "_") and method.__module__.startswith("ldmkit.")
    ]
    notes = [
        str(note)
        for method in methods
        for note in ([p.annotation for p in method.parameters.values()] if parameters else [method.return_annotation])
    ]
    return {word for note in notes for word in re.findall(r"\w+", note)} & set(ldmkit.__all__)


def test_the_numbers_are_todays() -> None:
    assert {kind: number for kind, number in API.items() if number != 1} == {"conditioner": 2}
    assert "All are 1, except that of conditioners, which is 2." in PAGE
    assert deprecation.NOTICE_PERIOD == 2 and "deprecated in 0.2 may be removed in 0.4" in PAGE


def test_every_helper_is_on_the_page() -> None:
    named = set(re.findall(r"\w+", PAGE.split("## Deprecation")[1].split("\n## ")[0]))
    home = deprecation.__name__
    made = {name for name, value in vars(deprecation).items() if getattr(value, "__module__", "") == home}
    assert {"Notice", "LdmkitDeprecationWarning", "RENAMED_PARTS"} <= named
    internal = {"version_of", "renamed_part"}
    assert {name for name in made if name[0] != "_"} - internal <= named, "helpers are on the page"
