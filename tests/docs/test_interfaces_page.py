"""docs/interfaces.md names every public class of the contracts, and every member that one may write or is given."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import ldmkit
from ldmkit.contracts.conditioner_v1 import FormerMembers

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "interfaces.md").read_text(encoding="utf-8")
CODE = "\n".join([*re.findall(r"```python\n(.*?)```", PAGE, re.S), *re.findall(r"`([^`\n]+)`", PAGE)])
NAMED = set(re.findall(r"\w+", CODE))
CLASSES = [
    value
    for name in ldmkit.__all__
    if inspect.isclass(value := getattr(ldmkit, name)) and value.__module__.startswith("ldmkit.contracts.")
]


def members(cls: type) -> list[str]:
    """Public names that a class and its bases in the contracts define; those of version 1 belong to their mixins."""
    owners = [one for one in cls.__mro__ if one.__module__.startswith("ldmkit.contracts.") and one is not FormerMembers]
    names = [name for one in owners for name in {**vars(one), **inspect.get_annotations(one)}]
    return sorted({name for name in names if not name.startswith(("_", "model_"))})


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_member_is_on_the_page(cls: type) -> None:
    assert cls.__name__ in NAMED
    assert [name for name in members(cls) if name not in NAMED] == []


def test_members_are_found() -> None:
    assert len(CLASSES) > 50 and {"framed", "ports", "forward", "has_null"} <= set(members(ldmkit.Ported))
    assert "no_such_member" not in NAMED
