"""What `ldmkit compare` is asked for is checked before anything is drawn."""

from __future__ import annotations

import pytest
from ldmkit_compare.asked import check_plan, parse_samplers
from ldmkit_compare.words import parse_steps
from ldmkit_samplers.ddim import DDIM
from ldmkit_samplers.euler import Euler
from ldmkit_samplers.grids.timesteps import Trailing
from ldmkit_samplers.heun import Heun

import ldmkit
from ldmkit.cli.words import parse_strategy


def test_names_configs_and_qualified_names() -> None:
    found = parse_samplers("euler, ddim:eta=0.5,ldmkit:ddim:eta=1,unipc:solver_order=3,variant=bh1,heun")
    assert [entrant.name for entrant in found] == [
        "euler", "ddim:eta=0.5", "ldmkit:ddim:eta=1", "unipc:solver_order=3,variant=bh1", "heun",
    ]  # fmt: skip
    assert found[0].sampler == Euler() and found[2].sampler == DDIM(eta=1)
    assert found[3].sampler.model_dump()["variant"] == "bh1"


def test_configs_of_qualified_names() -> None:
    assert parse_strategy("my-dist:mine:order=2", "x") == {"type": "my-dist:mine", "config": {"order": 2}}
    assert parse_strategy("my-dist:mine", "x") == "my-dist:mine"
    assert parse_strategy("explicit:values=[9,0.5,0]", "x") == {"type": "explicit", "config": {"values": [9, 0.5, 0]}}
    with pytest.raises(ldmkit.InputError, match=r"input\.strategy-config"):
        parse_strategy("ddim:eta=1,eta=0", "x")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("euler,euler", "input.sampler-twice"),
        ("euler,ldmkit:euler", "input.sampler-twice"),
        ("ddim,ddim:eta=0", "input.sampler-twice"),
        ("euler,,heun", "input.sampler-missing"),
        ("", "input.sampler-missing"),
        ("euler,nobody", "plugin.unknown"),
        ("ddim:eta=3", "spec."),
        ("ddim:etta=1", "spec."),
    ],
)
def test_samplers_that_cannot_be_compared(text: str, code: str) -> None:
    with pytest.raises(ldmkit.LdmkitError) as caught:
        parse_samplers(text)
    assert caught.value.code.startswith(code)


def test_steps_in_order() -> None:
    assert parse_steps("20, 5,10") == (5, 10, 20)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("0", "input.steps-range"),
        ("5,20000", "input.steps-range"),
        ("5,5", "input.steps-twice"),
        ("5,,6", "input.steps-type"),
        ("five", "input.steps-type"),
        ("-3", "input.steps-type"),
        ("2.5", "input.steps-type"),
    ],
)
def test_steps_that_cannot_be_taken(text: str, code: str) -> None:
    with pytest.raises(ldmkit.InputError) as caught:
        parse_steps(text)
    assert caught.value.code == code


def test_size_of_a_comparison() -> None:
    process, entrants = ldmkit.get("process", "discrete")(), parse_samplers("euler,heun")
    assert check_plan(entrants, (5, 10), Trailing(), process, 7) == 7 + sum(
        sampler.evaluations(n) for sampler in (Euler(), Heun()) for n in (5, 10)
    )
    with pytest.raises(ldmkit.InputError, match=r"input\.compare-size.*runs"):
        check_plan(entrants, tuple(range(1, 102)), Trailing(), process, 0)
    with pytest.raises(ldmkit.InputError, match=r"input\.compare-size.*called"):
        check_plan(entrants, (1000,), Trailing(), process, 60_000)
    with pytest.raises(ldmkit.InputError):  # the schedule has 1000 times
        check_plan(entrants, (2000,), Trailing(), process, 0)
