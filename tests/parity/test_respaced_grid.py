"""Respaced timesteps against the lists that diffusers publishes for DeepFloyd IF, which the same rule made."""

from __future__ import annotations

import pytest
from diffusers.pipelines.deepfloyd_if import timesteps
from ldmkit_processes.discrete import Discrete
from ldmkit_samplers.grids.respaced import Respaced

import ldmkit
from ldmkit import InputError

SECTIONS = {
    "fast27": (10, 10, 3, 2, 2),
    "smart50": (10, 6, 4, 3, 2, 2, 3, 4, 6, 10),
    "super27": (1, 1, 1, 1, 1, 1, 1, 2, 5, 13),
    "super40": (2, 2, 2, 2, 2, 2, 3, 4, 6, 15),
    "super100": (4, 4, 6, 6, 8, 8, 10, 10, 14, 30),
}


@pytest.mark.parametrize("name", SECTIONS)
def test_published_lists(name: str) -> None:
    grid, published = Respaced(sections=SECTIONS[name]), getattr(timesteps, f"{name}_timesteps")
    steps = len(published)
    assert grid.timesteps(1000, steps) == published
    process = Discrete(schedule="cosine")
    levels = grid.sigmas(process, steps)
    assert [process.time(sigma) for sigma in levels[:-1]] == published and levels[-1] == 0
    assert grid.own_steps == steps


def test_one_section_reaches_both_ends() -> None:
    """999 in 249 strides of 4.012; the first that is rounded away from a multiple of 4 is 125 * 4.012 = 501.5."""
    times = Respaced().timesteps(1000, 250)
    assert len(times) == 250 and times[0] == 999 and times[-1] == 0
    assert times[::-1][:4] == [0, 4, 8, 12] and times[::-1][124] == 497
    assert Respaced().timesteps(1000, 1) == [0]
    assert Respaced().timesteps(1000, 1000) == list(range(999, -1, -1))


def test_the_rule_for_ddim() -> None:
    assert Respaced(rule="ddim").timesteps(1000, 25) == list(range(960, -1, -40))
    assert Respaced(rule="ddim").timesteps(1000, 30) == list(range(986, -1, -34))  # 34 is the first that makes 30
    with pytest.raises(InputError, match="600 steps do not fit") as caught:
        Respaced(rule="ddim").sigmas(Discrete(), 600)
    assert caught.value.fits == "500 or 1000 steps"


def test_sections_have_their_own_steps() -> None:
    with pytest.raises(InputError, match="sections of 27 steps for 20") as caught:
        Respaced(sections=SECTIONS["fast27"]).sigmas(Discrete(), 20)
    assert caught.value.code == "input.grid-length"
    with pytest.raises(InputError, match="do not fit"):  # a section of 2 timesteps has no 3
        Respaced(sections=(3, 1)).sigmas(Discrete(steps=4), 4)
    with pytest.raises(ldmkit.SpecError, match="one section"):
        Respaced(sections=(3, 1), rule="ddim")
