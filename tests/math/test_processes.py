"""What every process promises: scalings that invert, a consistent target, finite ends, inverse clocks."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
import torch
from ldmkit_processes.discrete import Discrete
from ldmkit_processes.edm import EDM
from ldmkit_processes.flow import Flow

from ldmkit import Process, SpecError

PROCESSES: list[Process] = [
    Discrete(),
    Discrete(prediction="v"),
    Discrete(prediction="x0", schedule="cosine"),
    Discrete(prediction="v", zero_terminal_snr=True),
    Discrete(prediction="v", schedule="linear", beta_start=1e-4, beta_end=0.02, steps=500),
    Discrete(schedule="sqrt", beta_start=0.0015, beta_end=0.0195),
    Discrete(schedule="alpha-bars", values=(0.9, 0.5, 0.1), steps=3),
    Flow(),
    Flow(shift=3, density="logit-normal"),
    EDM(),
]
EVERY = pytest.mark.parametrize("process", PROCESSES, ids=repr)


def levels(process: Process) -> list[float]:
    low, high = math.log(process.sigma_min), math.log(process.sigma_max)
    return [math.exp(low + (high - low) * i / 10) for i in range(1, 10)]


def test_targets_are_what_their_names_say() -> None:
    x0, noise, sigma = torch.tensor([[2.0]]), torch.tensor([[3.0]]), 1.5
    alpha = 1 / math.sqrt(1 + sigma**2)
    want = {"eps": 3.0, "x0": 2.0, "v": alpha * 3.0 - alpha * sigma * 2.0}
    for prediction, value in want.items():
        got = Discrete(prediction=prediction).target(x0, noise, [sigma])  # type: ignore[arg-type]
        assert float(got) == pytest.approx(value, rel=1e-6)
    assert float(Flow().target(x0, noise, [sigma])) == pytest.approx(1.0, rel=1e-6)


@EVERY
def test_the_network_sees_about_unit_variance(process: Process) -> None:
    """scale * x for data of unit variance (EDM: of sigma_data)."""
    spread = process.sigma_data if isinstance(process, EDM) else 1.0
    for sigma in levels(process):
        got = process.scalings(sigma)[2] * math.hypot(spread, sigma)
        assert got == pytest.approx(1.0, rel=0.3)


def test_timesteps_are_exact_integers_on_the_table() -> None:
    for rule in ("interpolate", "round", "nearest"):
        process = Discrete(time_rule=rule)  # type: ignore[arg-type]
        for t in range(1000):
            assert process.time(process.sigma_of_time(t)) == t
    process = Discrete()
    assert process.time(process.sigma_min / 2) == 0 and process.time(process.sigma_max * 2) == 999
    half = process.sigma_of_time(10.25)
    assert process.time(half) == pytest.approx(10.25)
    assert Discrete(time_rule="round").time(half) == 10
    assert Discrete(time_rule="round").scalings(half)[1] == -half
    assert Discrete(time_rule="nearest").scalings(half)[1] == -process.sigma_of_time(10)
    with pytest.raises(SpecError):
        process.sigma_of_time(1000)


def test_flow_reads_one_at_its_clamped_end() -> None:
    process = Flow(shift=3)
    assert process.time(process.sigma_max) == 1000
    assert process.sigma(0.5) == pytest.approx(3.0)
    assert Flow(density="logit-normal", loc=0.5).sigma(0.5) == pytest.approx(math.exp(0.5))


def test_tables_survive_copies_and_pickling() -> None:
    process = Discrete()
    assert len(process.table.sigmas) == 1000
    again = pickle.loads(pickle.dumps(process))
    assert again == process and again.table == process.table and hash(again) == hash(process)
    changed = process.model_copy(update={"beta_end": 0.02})
    assert changed.sigma_max > process.sigma_max
    assert Discrete.model_validate_json(process.model_dump_json()) == process


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"zero_terminal_snr": True}, "spec.zero-snr-eps"),
        ({"schedule": "betas"}, "spec.schedule-values"),
        ({"values": (0.1,) * 1000}, "spec.schedule-values"),
        ({"schedule": "betas", "values": (0.1, 0.2)}, "spec.schedule-values"),
        ({"schedule": "betas", "values": (0.1, 1.2), "steps": 2}, "spec.schedule-range"),
        ({"schedule": "alpha-bars", "values": (0.5, 0.9), "steps": 2}, "spec.schedule-order"),
        ({"beta_end": 2.0}, "spec.invalid"),
        ({"beta_start": math.nan}, "spec.invalid"),
        ({"predicton": "v"}, "spec.unknown-key"),
    ],
)
def test_bad_configs(values: dict[str, Any], code: str) -> None:
    with pytest.raises(SpecError) as caught:
        Discrete.of(values)
    assert caught.value.code == code
