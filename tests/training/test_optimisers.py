"""Learning rates, optimisers and the running average, against the published schedules and by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ldmkit_training.loop.ema import Ema, EmaSection
from ldmkit_training.loop.optimisers import (
    Cycles,
    OptimiserSection,
    Schedule,
    Warmed,
    optimiser_tensors,
    restore_optimiser,
    set_rate,
)
from pydantic import TypeAdapter
from torch import nn

from ldmkit.errors import SpecError, WeightsError

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "schedules" / "arrays.npz")

PUBLISHED = {
    "lr.warmup_cosine": {
        "type": "ldm-cosine", "lengths": [50000], "warmup": [1000], "start": [1e-3], "peak": [0.1], "floor": [1e-4],
    },
    "lr.linear_warmup": {
        "type": "ldm-linear", "lengths": [10**13], "warmup": [10000], "start": [1e-6], "peak": [1.0], "floor": [1.0],
    },
    "lr.cosine2": {
        "type": "ldm-cosine", "lengths": [10000, 80000], "warmup": [100, 200],
        "start": [0.01, 0.02], "peak": [1.0, 0.5], "floor": [0.1, 0.05],
    },
}  # fmt: skip
"""The configs that the golden values' descriptions name."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_schedules(name: str) -> None:
    """float32 of the golden file: one part in 2**24."""
    schedule = TypeAdapter(Schedule).validate_python(PUBLISHED[name])
    made = [schedule.factor(int(step), 10**6) for step in GOLDEN["lr.steps"]]
    np.testing.assert_allclose(made, GOLDEN[name], rtol=1e-6)


def test_after_the_last_cycle_its_end_holds() -> None:
    schedule = Cycles.of(PUBLISHED["lr.cosine2"])
    assert schedule.factor(10**6, 1) == pytest.approx(0.05)


def test_a_cycle_wants_one_number_each() -> None:
    with pytest.raises(SpecError) as caught:
        Cycles.of({**PUBLISHED["lr.cosine2"], "floor": [0.1]}, "schedule")
    assert caught.value.code == "spec.cycles" and caught.value.where == "schedule.floor"


def test_warm_up_and_decay() -> None:
    cosine = Warmed(type="cosine", warmup=4, final=0.1)
    assert [cosine.factor(n, 12) for n in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert cosine.factor(8, 12) == pytest.approx(0.1 + 0.9 * 0.5)
    assert cosine.factor(12, 12) == pytest.approx(0.1) == cosine.factor(99, 12)
    linear = Warmed(type="linear")
    assert [linear.factor(n, 4) for n in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    assert Warmed(warmup=2).factor(1000, 4) == 1


def test_average_of_the_original_code() -> None:
    """Golden arithmetic in float32, ours by lerp: a few units in the last place of values about 1."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.from_numpy(GOLDEN["ema.weights"][0]))
    ema = Ema(module, EmaSection(decay=0.9999))
    for weights, shadow in zip(GOLDEN["ema.weights"][1:], GOLDEN["ema.shadow"][1:], strict=True):
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(weights))
        ema.update()
        np.testing.assert_allclose(ema.tensors["weight"].numpy(), shadow, atol=5e-7)


def test_the_average_is_put_in_place_and_taken_out_again() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    module[0].bias.requires_grad_(False)
    ema = Ema(module, EmaSection(decay=0.5, warmup=False))
    assert set(ema.tensors) == {"0.weight", "1.weight", "1.bias"}
    before = {name: t.clone() for name, t in module.state_dict().items()}
    with torch.no_grad():
        module[0].weight += 1
    ema.update()
    live = module[0].weight.detach().clone()
    with pytest.raises(ZeroDivisionError), ema.swapped():
        torch.testing.assert_close(module[0].weight.detach(), before["0.weight"] + 0.5)
        raise ZeroDivisionError
    assert torch.equal(module[0].weight, live)
    with pytest.raises(WeightsError):
        ema.restore({"other": live}, 1)


def test_norms_biases_and_embeddings_do_not_decay_unless_asked() -> None:
    turn = nn.ModuleDict({"table": nn.Embedding(3, 4), "conv": nn.Conv2d(2, 3, 1), "norm": nn.GroupNorm(1, 3)})
    groups = OptimiserSection(weight_decay=0.1).build(turn, "t").param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.1), (4, 0.0)]
    (group,) = OptimiserSection(weight_decay=0.1, decay="all").build(turn, "t").param_groups
    assert (len(group["params"]), group["weight_decay"]) == (5, 0.1)


def test_rates_by_turn_and_step() -> None:
    made = OptimiserSection(lr=0.1, rates={"critic": 0.4}).build(nn.Linear(2, 2), "critic")
    assert set_rate(made, 0.25) == pytest.approx(0.1) and set_rate(made, 0.5) == pytest.approx(0.2)


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(SpecError) as caught:
        OptimiserSection().build(nn.Linear(2, 2).requires_grad_(False), "denoiser")
    assert caught.value.code == "spec.nothing-trained" and "denoiser" in caught.value.what


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_state_by_name_continues_bit_for_bit(kind: str) -> None:
    section = OptimiserSection(type=kind, lr=0.1)
    torch.manual_seed(1)
    one, inputs = nn.Linear(3, 2), torch.randn(6, 5, 3)
    other = nn.Linear(3, 2)
    first = section.build(one, "t")

    def step(module: nn.Module, optimiser: torch.optim.Optimizer, x: torch.Tensor) -> None:
        optimiser.zero_grad()
        module(x).square().sum().backward()
        optimiser.step()

    for x in inputs[:3]:
        step(one, first, x)
    other.load_state_dict(one.state_dict())
    second = section.build(other, "t")
    saved = {name: tensor.clone() for name, tensor in optimiser_tensors(first, one).items()}
    assert "weight/momentum_buffer" in saved if kind == "sgd" else "bias/exp_avg_sq" in saved
    restore_optimiser(second, other, saved)
    for x in inputs[3:]:
        step(one, first, x)
        step(other, second, x)
    assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)


def test_adamw_is_torchs_own() -> None:
    """One step by hand: m / (sqrt(v) + eps) is the gradient's sign at the first step."""
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(2.0)
    made = OptimiserSection(lr=0.1, weight_decay=0.5).build(module, "t")
    module.weight.grad = torch.full((1, 1), 3.0)
    made.step()
    assert module.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1, rel=1e-6)
    assert math.isfinite(module.weight.item())
