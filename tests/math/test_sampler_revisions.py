"""The numbers of a sampler's revision never change: trajectories against those that are kept.

float64 within 1e-10 of the largest value of a run, float32 within 2e-5: rounding differs between processors, and the
step that goes up to 2^20 and back magnifies it. A changed coefficient shows from about 1e-9 on.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from sampler_trajectories import FOLDER, RUNS, entries, names, read, revisions, trajectory

from ldmkit.errors import SpecError
from ldmkit.plugins.catalogue import get

TOLERANCE = {"float64": 1e-10, "float32": 2e-5, "far": 1e-10}
ACCEPT = "a change of numbers is a new revision (docs/samplers.md); python tests/math/sampler_trajectories.py writes it"


@pytest.mark.parametrize("name", names())
def test_trajectories_are_those_that_are_kept(name: str) -> None:
    kept = read(name)
    for key, sampler in entries(name).items():
        assert key in kept, f"{name} {key} has no kept trajectory: {ACCEPT}"
        for run, (sigmas, dtype) in RUNS.items():
            found, wanted = (
                trajectory(sampler, sigmas, dtype).double(),
                torch.tensor(kept[key][run], dtype=torch.float64),
            )
            # the largest value at each level: an error after the start is not hidden by the size of the start
            size = wanted.abs().amax(1, keepdim=True).clamp(min=1.0)
            wrong = ((found - wanted).abs() / size).amax(1)
            bad = [i for i, w in enumerate(wrong.tolist()) if not w <= TOLERANCE[run]]
            assert not bad, f"{name} {key} {run}: transition {bad[0]} is off by {float(wrong[bad[0]]):.3g}; {ACCEPT}"


def test_nothing_else_is_kept_and_nothing_was_given_up() -> None:
    """A file without a sampler, or an entry that no revision makes any more, would be a sampler taken from its users.

    The whole is small: below 200 kB.
    """
    files = {path.stem: path for path in FOLDER.glob("*.json")}
    assert sorted(files) == names()
    for name in names():
        gone = {json.loads(key)["revision"] for key in read(name)} - set(revisions(name))
        assert not gone, f"{name}: revision {gone} can no longer be chosen"
    assert sum(path.stat().st_size for path in files.values()) < 200_000


@pytest.mark.parametrize("name", names())
def test_revisions_are_fields_with_a_default_and_a_clear_refusal(name: str) -> None:
    cls = get("sampler", name)
    assert list(cls.model_fields)[-1] == "revision", "the last field: fields are given by position too"
    assert cls.of({}).revision == max(revisions(name)) == cls().model_dump()["revision"]
    with pytest.raises(SpecError, match=r"revision.*should be 1") as caught:
        cls.of({"revision": 99}, f"sampler {name}")
    assert "99" in str(caught.value)


def test_the_kept_numbers_would_notice() -> None:
    """The tolerance's power: eta off by one part in 10^8 is found, in float64."""
    sampler: Any = get("sampler", "dpmpp-2m-sde")
    sigmas, dtype = RUNS["float64"]
    kept = torch.tensor(read("dpmpp-2m-sde")['{"revision": 1}']["float64"], dtype=torch.float64)
    moved = trajectory(sampler(eta=1 - 1e-8), sigmas, dtype)
    assert float((moved - kept).abs().max()) > TOLERANCE["float64"]
