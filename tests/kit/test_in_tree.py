"""Every part that comes with ldmkit keeps the promises of its kind: nothing in-tree is exempt."""

from __future__ import annotations

import pytest

from ldmkit.plugins.catalogue import HOME, Entry, catalogue, load_entry
from ldmkit.plugins.kinds import GROUPS
from ldmkit.testing.discovery import cases

PARTS = [entry for entry in catalogue() if entry.dist == HOME and entry.kind in GROUPS]

WITHOUT_EXAMPLES: dict[str, str] = {}
"""Parts that cannot be built without files, and why."""


@pytest.mark.parametrize("entry", PARTS, ids=lambda entry: f"{entry.kind}:{entry.name}")
def test_part_keeps_its_promises(entry: Entry) -> None:
    for case in cases(entry):
        case.report().require()


@pytest.mark.parametrize("entry", PARTS, ids=lambda entry: f"{entry.kind}:{entry.name}")
def test_part_has_an_example(entry: Entry) -> None:
    exempt = f"{entry.kind}:{entry.name}" in WITHOUT_EXAMPLES
    assert (load_entry(entry).examples == ()) == exempt, "a part without examples is listed here with the reason"


def test_every_kind_has_a_part() -> None:
    assert {entry.kind for entry in PARTS} == set(GROUPS)
