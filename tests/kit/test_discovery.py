"""From names of installed parts to reports: what is found, and what is said where nothing is."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, ClassVar, Literal

import pytest
from fake_distributions import Distribution
from good_conditioner import Palette
from pydantic import ConfigDict, field_validator

import ldmkit.testing
from ldmkit import Example, PluginError
from ldmkit.cli import main
from ldmkit.cli.answers import PLUGIN, USAGE
from ldmkit.plugins.kinds import GROUPS
from ldmkit.testing import discovery, part
from ldmkit.testing.checks import checks

GOOD = "[ldmkit.conditioners]\npalette = good_conditioner:Palette\n"
BAD = GOOD + "bent = broken_conditioner:WrongDim\n[ldmkit.samplers]\ngone = no_such_module:Gone\n"


class Bare(Palette):
    examples: ClassVar[tuple[Example, ...]] = (Example({"dim": 6}, Palette.examples[0].inputs),)


class NotExamples(Palette):
    """Its examples are no examples."""

    examples: ClassVar[Any] = [{"dim": 6}]


class WrongConfig(Palette):
    """Its example is not valid."""

    examples = (Example({"dims": 6}),)


class LooseConfig(Palette.Config):  # type: ignore[name-defined,misc]
    """Takes every key."""

    model_config = ConfigDict(extra="ignore")


class Loose(Palette):
    """Misspelt keys are ignored."""

    Config: Any = LooseConfig


class LiveConfig(Palette.Config):  # type: ignore[name-defined,misc]
    """Holds a function, which JSON cannot."""

    scale: Any = len


class Live(Palette):
    """Its config is code."""

    Config: Any = LiveConfig


class Stillborn(Palette):
    """Cannot be built."""

    examples = Palette.examples

    def __init__(self, config: Any = None):
        raise RuntimeError("out of luck")


class TableConfig(Palette.Config):  # type: ignore[name-defined,misc]
    """Has a choice that no example can take."""

    mode: Literal["plain", "table"] = "plain"

    @field_validator("mode")
    @classmethod
    def _refused(cls, mode: str) -> str:
        if mode == "table":
            raise ValueError("where is the table?")
        return mode


class Table(Palette):
    """Has a choice that no example can take."""

    Config: Any = TableConfig


BROKEN = {
    "loads": "test_discovery:Nowhere",
    "docstring": "test_discovery:Bare",
    "examples": "test_discovery:NotExamples",
    "builds": "test_discovery:Stillborn",
    "choices": "test_discovery:Table",
    "config-json": "test_discovery:Live",
    "config-strict": "test_discovery:Loose",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_every_part_promises(name: str, distribution: Distribution) -> None:
    distribution("my-parts", f"[ldmkit.conditioners]\nmine = {BROKEN[name]}\n")
    [entry] = discovery.select("my-parts")
    reports = discovery.check(entry)
    failures = {outcome.check.name for report in reports for outcome in report.failures}
    assert failures == {name}, "\n".join(map(str, reports))


def test_every_check_of_parts_has_a_broken_one() -> None:
    assert set(BROKEN) == {check.name for check in checks("part")}


def test_an_invalid_example_is_named(distribution: Distribution) -> None:
    distribution("my-parts", "[ldmkit.conditioners]\nmine = test_discovery:WrongConfig\n")
    [failure] = discovery.check(discovery.select("my-parts")[0])[0].failures[:1]
    assert failure.check.name == "examples" and "dims" in failure.came and "examples[0].config" in failure.came


class FromTheFuture(Palette):
    """Written against a later version of the contract."""

    api = 99


def test_another_version_of_the_contract_is_named(distribution: Distribution) -> None:
    distribution("my-parts", "[ldmkit.conditioners]\nmine = test_discovery:FromTheFuture\n")
    [report] = discovery.check(discovery.select("my-parts")[0])
    [failure] = report.failures
    assert failure.check.name == "loads" and "99" in failure.came


def test_names_and_distributions_are_found(distribution: Distribution) -> None:
    distribution("my-parts", BAD)
    names = ["my-parts", "My_Parts", "conditioner:palette", "my-parts:palette", "palette", "none"]
    found = {name: [f"{e.kind}:{e.name}" for e in discovery.select(name)] for name in names}
    assert found["my-parts"] == found["My_Parts"] == ["conditioner:bent", "conditioner:palette", "sampler:gone"]
    assert found["conditioner:palette"] == found["my-parts:palette"] == found["palette"] == ["conditioner:palette"]
    assert found["none"] == ["guidance:none", "perceptual:none"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my-part", "did you mean 'my-parts'"),
        ("zzz", "distributions with parts: ldmkit"),
        ("numpy", "registers no part.*plugins doctor numpy"),
    ],
)
def test_unknown_names(name: str, words: str, distribution: Distribution) -> None:
    distribution("my-parts", GOOD)
    with pytest.raises(PluginError, match=words):
        discovery.select(name)


def test_a_kind_without_a_suite_is_an_error() -> None:
    with pytest.raises(PluginError, match="no checks for parts of kind 'dream'"):
        discovery.suite("dream")
    assert all(discovery.suite(kind) for kind in GROUPS)


def test_command_line(distribution: Distribution, capsys: pytest.CaptureFixture[str]) -> None:
    distribution("my-parts", BAD)
    assert main(["plugins", "check", "palette"]) == 0
    printed = capsys.readouterr().out
    assert "conditioner:palette of my-parts 1.0" in printed and "failed" not in printed
    assert main(["plugins", "check", "my-parts"]) == PLUGIN
    printed = capsys.readouterr().out
    assert "dim 7, as declared" in printed and "see:      docs/contracts.md#conditioner-signal" in printed
    assert "no module named 'no_such_module'" in printed and "3 part(s): " in printed
    assert main(["plugins", "check", "bent", "--json"]) == PLUGIN
    [found] = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["name"], found["distribution"], found["ok"]) == (
        "conditioner",
        "bent",
        "my-parts",
        False,
    )
    [signal] = [row for row in found["checks"] if row["check"] == "conditioner-signal"]
    assert signal["status"] == "failed" and signal["example"] == 0 and signal["expected"] and signal["came"]
    assert main(["plugins", "check", "nobody"]) == PLUGIN
    assert "no distribution and no part is called 'nobody'" in capsys.readouterr().err
    assert main(["plugins", "check"]) == USAGE


def test_a_part_without_examples_says_so(
    distribution: Distribution, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Palette, "examples", ())
    distribution("my-parts", GOOD)
    assert main(["plugins", "check", "palette"]) == 0
    assert "nothing was built" in capsys.readouterr().out


def test_nothing_of_the_kit_imports_torch_before_a_part_does() -> None:
    code = """
import sys
import ldmkit.testing.pytest_plugin, ldmkit.testing.discovery
from ldmkit.testing import check, select, Failed, Report
select("ldmkit")
assert not {"torch", "numpy"} & set(sys.modules), "torch"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_are_where_the_table_says() -> None:
    assert set(dir(ldmkit.testing)) == set(ldmkit.testing.__all__)
    for name in ldmkit.testing.__all__:
        assert callable(getattr(ldmkit.testing, name))
    with pytest.raises(AttributeError, match="no attribute 'check_dream'"):
        ldmkit.testing.check_dream  # noqa: B018
    assert part.examples_of(NotExamples) == ()
