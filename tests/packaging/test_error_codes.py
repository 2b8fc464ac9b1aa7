"""docs/errors.md lists exactly the codes that the source raises."""

from __future__ import annotations

import importlib.util
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import ldmkit

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def codes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("error_codes", ROOT / ".ci" / "error_codes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_lists_the_codes_of_the_source(codes: ModuleType) -> None:
    listed = set(re.findall(r"^\| `([a-z]+\.[a-z0-9-]+)` \|", codes.PAGE.read_text(), re.MULTILINE))
    in_source = {item.code for item in codes.raised()}
    assert listed == in_source, "run `python .ci/error_codes.py --write`"
    assert len(listed) > 100


def test_the_scan_finds_known_codes(codes: ModuleType) -> None:
    found = {item.code: item for item in codes.raised()}
    for code in ("input.steps-range", "compose.ambiguous-slot", "source.duplicate-key", "input.duplicate-key"):
        assert code in found
    for code in ("plugin.missing-dependency", "run.out-of-memory", "weights.wrong-shape", "spec.unknown-key"):
        assert code in found
    assert found["input.seed-range"].meaning == "... does not fit in 64 bits"


def test_families_are_those_of_the_classes(codes: ModuleType) -> None:
    """The scan knows every class: codes of one that it does not know would be missing on the page."""
    classes = list(_derived(ldmkit.LdmkitError))
    assert {cls.__name__: (cls.family,) for cls in classes} == codes.FAMILIES
    assert all(getattr(ldmkit, name) in classes for name in codes.FAMILIES)
    table = re.findall(r"^\| `(\w+)` \| `(\w+)`", codes.PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: (family,) for family, name in table} == codes.FAMILIES


def _derived(cls: type) -> Iterator[type]:
    """Every class of ours below a class."""
    for below in cls.__subclasses__():
        if below.__module__.startswith("ldmkit"):
            yield below
        yield from _derived(below)


def test_errors_survive_pickling() -> None:
    error = ldmkit.InputError("seed-range", "what", where="seeds[0]", fits="less")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ldmkit.InputError and str(again) == str(error) and again.code == error.code
