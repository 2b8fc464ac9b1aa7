"""The kit tells the cause of a fault once, by name, and nothing of what follows from it."""

from __future__ import annotations

from typing import Any

import broken_causes as parts
import pytest
from fake_distributions import Distribution
from good_codec import PatchCodec
from good_conditioner import Spoken
from good_denoiser import PatchNet
from good_sampler import Straight

import ldmkit.testing
from ldmkit import Part, PluginError
from ldmkit.plugins.kinds import GROUPS
from ldmkit.testing import check_codec, check_conditioner, check_denoiser, check_grid, check_sampler

pytest_plugins = ["pytester"]

ONE = [
    (check_conditioner, parts.Stillborn, "builds", "RuntimeError: out of luck"),
    (check_denoiser, parts.StillbornNet, "builds", "RuntimeError: out of luck"),
    (check_sampler, parts.StillbornSampler, "examples", "out of luck"),
    (check_conditioner, parts.Counted, "determinism", "they differ by up to"),
    (check_denoiser, parts.CountedNet, "determinism", "they differ by up to"),
    (check_conditioner, parts.Drawn, "no-global-rng", "changed: torch"),
    (check_conditioner, parts.Peeking, "no-global-rng", "they differ by up to"),
    (check_sampler, parts.DrawnSampler, "pure", "changed: random"),
    (check_grid, parts.DrawnGrid, "pure", "changed: random"),
    (check_conditioner, parts.Undocumented, "docstring", "none"),
    (check_sampler, parts.Refusing, "choices", "mode 'table' and a table go together"),
]


@pytest.mark.parametrize(("check", "cls", "name", "came"), ONE, ids=lambda value: getattr(value, "__name__", None))
def test_one_fault_fails_one_check(check: Any, cls: type[Any], name: str, came: str) -> None:
    report = check(cls)
    assert {outcome.check.name for outcome in report.failures} == {name}, str(report)
    assert all(came in outcome.came for outcome in report.failures)


def test_what_comes_after_a_cause_is_said_to_be_left_out() -> None:
    found = {one.check.name: one for one in check_conditioner(parts.Counted).outcomes}
    assert (found["listens"].status, found["listens"].came) == ("skipped", "not run: conditioner-determinism failed")
    assert found["no-global-rng"].status == "skipped" and "see the check determinism" in found["no-global-rng"].came
    assert found["docstring"].status == "passed", "what does not follow from it is checked"


@pytest.mark.parametrize(
    ("check", "cls", "sound"),
    [
        (check_conditioner, parts.Normed, Spoken),
        (check_denoiser, parts.NormedNet, PatchNet),
        (check_codec, parts.NormedCodec, PatchCodec),
    ],
)
def test_batch_norm_is_caught_in_training_mode(check: Any, cls: type[Any], sound: type[Any]) -> None:
    """In eval mode it is a constant, and couples nothing."""
    failed = {outcome.check.name for outcome in check(cls).failures}
    assert "training-rows" in failed and not failed & {"batch-invariance", "order", "determinism"}, failed
    assert check(sound).ok


def test_what_no_example_takes_is_checked_and_named() -> None:
    report = check_sampler(parts.Chosen)
    failed = [outcome for outcome in report.failures if outcome.check.name == "order"]
    assert [outcome.example for outcome in failed] == ["examples[0] with ends=early"]
    assert "with:     examples[0] with ends=early" in str(report)
    [choices] = [outcome for outcome in report.outcomes if outcome.check.name == "choices"]
    assert choices.came == "no example has ends=early: checked by changing the first that allows it"


def test_numbers_are_varied_where_an_example_says_so() -> None:
    report = check_sampler(parts.Numbered)
    assert {outcome.example for outcome in report.failures} == {"examples[0] with doubled=2"}
    [choices] = [outcome for outcome in report.outcomes if outcome.check.name == "choices"]
    assert "not checked, as Example.vary excludes them: ends=early" in choices.came


def test_a_given_config_is_checked_alone() -> None:
    report = check_sampler(parts.Chosen, {"ends": "well"}).require()
    assert {outcome.example for outcome in report.outcomes} == {""}


@pytest.mark.parametrize("kind", GROUPS)
def test_a_class_of_another_kind_is_refused(kind: str) -> None:
    other: type[Any] = Spoken if kind == "sampler" else Straight
    check = getattr(ldmkit.testing, f"check_{kind}")
    with pytest.raises(
        PluginError, match=f"{other.__name__} is not a .*ldmkit.{'conditioners' if kind == 'sampler' else ''}"
    ):
        check(other)
    for thing in (Part, Straight(), None, "euler"):
        with pytest.raises(PluginError, match=r"is not a (sub)?class"):
            check(thing)


def test_pytest_reports_a_cause_once(pytester: pytest.Pytester, distribution: Distribution) -> None:
    distribution("my-parts", "[ldmkit.conditioners]\ncounted = broken_causes:Counted\n")
    arguments = ("--ldmkit", "my-parts", "-p", "no:xdist", "-v")
    found = pytester.runpytest_inprocess(*arguments)
    assert found.parseoutcomes()["failed"] == 1
    assert "counted[0]::determinism FAILED" in found.stdout.str()
    found = pytester.runpytest_inprocess(*arguments, "-k", "listens or null")
    assert found.parseoutcomes()["failed"] == 1, "a cause is told though it was not chosen"
    assert "conditioner-determinism:" in found.stdout.str()
