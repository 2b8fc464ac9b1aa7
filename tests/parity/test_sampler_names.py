"""Names in other software: every distance is as it is written in docs/samplers.md, and the page is up to date."""

from __future__ import annotations

import pytest
from sampler_pairs import LINE, OTHER_NAMES, PAGE, PAIRS, K, Pair, names, page

pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # diffusers' DEIS, of numpy

TWICE = {str(p) for p in PAIRS if sum(str(p) == str(q) for q in PAIRS) > 1}


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_the_distance_is_the_written_one(pair: Pair) -> None:
    assert pair.distance() < pair.tolerance


def test_pairs_have_names_of_their_own() -> None:
    assert not TWICE


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text()
    assert text == page(text), "python tests/parity/sampler_pairs.py --write"
    assert all(f"| `{name}` |" in text for name in names())
    assert {key.partition(":")[0] for key in OTHER_NAMES} <= set(names())


def test_another_sampler_is_far_away() -> None:
    """The comparison's power: a neighbouring method, or a coefficient off by a hundredth, is not within a tolerance."""
    wrong = [
        Pair("dpmpp-3m-third-order", "sample_dpmpp_3m_sde", 1e-12, call={"eta": 0.0}),
        Pair("euler-ancestral:eta=0.99", "sample_euler_ancestral", 1e-12),
        Pair("deis:solver_order=2", "DEISMultistepScheduler", 1e-4, {"solver_order": 3}, variance=True),
    ]
    for pair in wrong:
        assert pair.distance() > 10 * pair.tolerance, pair


def test_diffusers_sde_of_three_estimates_is_another_method() -> None:
    """As the page says: the 1/2 in the weight of its second difference has the other sign."""
    settings = LINE | K | {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "solver_type": "heun"}
    pair = Pair("dpmpp-3m:eta=1", "DPMSolverMultistepScheduler", 1e-5, settings, injected=True, variance=True)
    assert pair.distance() > 0.01
