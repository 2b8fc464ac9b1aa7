"""The denoiser's objective against formulas written down independently, per prediction as the papers state them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_training.stages.denoiser.dropout import ConditionDropout
from ldmkit_training.stages.denoiser.model_section import ModelSection
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from ldmkit_training.stages.denoiser.stage import DenoiserStage
from ldmkit_training.stages.denoiser.weightings import elbo_weights
from pydantic import TypeAdapter
from torch import Tensor

import ldmkit
from ldmkit import Batch, Draws
from ldmkit.errors import CompositionError, SpecError

SIDE = 8


def process(prediction: str) -> Any:
    if prediction in ("eps", "v", "x0"):
        return ldmkit.get("process", "discrete")(prediction=prediction)
    return ldmkit.get("process", prediction)()


def objective(**fields: Any) -> DenoiserObjective:
    return DenoiserObjective.of(fields, "objective")


def weighting(**fields: Any) -> Any:
    return objective(weighting=fields).weighting


SIGMAS = (0.05, 0.7, 1.0, 3.0, 12.0)

# what the papers print, as functions of snr, by prediction
PRINTED: dict[str, tuple[dict[str, Any], dict[str, Callable[[float], float]]]] = {
    "min-snr": (
        {"gamma": 5.0},
        {
            "x0": lambda snr: min(snr, 5),
            "eps": lambda snr: min(1, 5 / snr),
            "v": lambda snr: min(snr, 5) / (snr + 1),
        },
    ),
    "snr": ({}, {"x0": lambda snr: snr, "eps": lambda snr: 1.0, "v": lambda snr: snr / (snr + 1)}),
    "truncated-snr": (
        {},
        {
            "x0": lambda snr: max(snr, 1),
            "eps": lambda snr: max(1, 1 / snr),
            "v": lambda snr: max(snr, 1) / (snr + 1),
        },
    ),
    "snr-plus-one": ({}, {"x0": lambda snr: snr + 1, "eps": lambda snr: 1 + 1 / snr, "v": lambda snr: 1.0}),
    "p2": (
        {"k": 1.0, "gamma": 0.5},
        {"eps": lambda snr: (1 + snr) ** -0.5, "x0": lambda snr: snr * (1 + snr) ** -0.5},
    ),
    "debiased": ({}, {"eps": lambda snr: 1 / math.sqrt(snr), "x0": math.sqrt}),
    "sigmoid": ({"bias": -3.0}, {"eps": lambda snr: 1 / (1 + math.exp(3 + math.log(snr)))}),
    "edm": ({"sigma_data": 0.5}, {"x0": lambda snr: (1 / snr + 0.25) / (1 / snr * 0.25)}),
    "uniform": ({}, {"eps": lambda snr: 1.0, "v": lambda snr: 1.0, "x0": lambda snr: 1.0}),
}


@pytest.mark.parametrize("name", PRINTED)
def test_weightings_are_what_the_papers_print(name: str) -> None:
    fields, printed = PRINTED[name]
    for prediction, formula in printed.items():
        for sigma in SIGMAS:
            got = weighting(type=name, **fields).factor(process(prediction), sigma)
            assert got == pytest.approx(formula(sigma**-2), rel=1e-9), (prediction, sigma)


@pytest.mark.parametrize("name", [name for name in PRINTED if name != "uniform"])
def test_a_weighting_means_the_same_error_of_x0_for_every_prediction(name: str) -> None:
    """The same x0 error costs the same, whatever the network's output stands for."""
    given = weighting(type=name, **PRINTED[name][0])
    for sigma in SIGMAS:
        costs = []
        for kind in ("eps", "v", "x0", "flow", "edm"):
            out = process(kind).scalings(sigma)[1]
            costs.append(given.factor(process(kind), sigma) * (0.3 / out) ** 2)  # F is off by 0.3 / out
        assert costs == pytest.approx([costs[0]] * len(costs), rel=1e-9)


def test_edm_weighting_is_one_on_edm_outputs() -> None:
    for sigma in SIGMAS:
        assert weighting(type="edm").factor(process("edm"), sigma) == pytest.approx(1.0, rel=1e-9)


def test_times() -> None:
    """Quantiles of each rule, through a flow (where sigma = t / (1 - t)) and a table."""
    flow, table = process("flow"), process("v")

    def times(**fields: Any) -> Any:
        return objective(times=fields).times

    for u in (0.1, 0.5, 0.93):
        level = times(type="power", exponent=0.6).sigma(flow, u)
        assert level / (1 + level) == pytest.approx(u**0.6, rel=1e-9)
        assert times(type="uniform").sigma(table, u) == table.table.sigmas[int(u * 1000)]
    middle = times(type="logit-normal", mean=0.4, std=1.0).sigma(flow, 0.5)
    assert middle / (1 + middle) == pytest.approx(1 / (1 + math.exp(-0.4)), rel=1e-9)
    assert times(type="log-normal", mean=-1.2).sigma(flow, 0.5) == pytest.approx(math.exp(-1.2), rel=1e-9)
    assert times(type="log-normal", mean=50.0).sigma(table, 0.5) == table.sigma_max


def test_stratified_times_fill_every_part_of_the_distribution() -> None:
    """Of 32 rows, each eighth of the quantiles gets 3 to 5; drawn one by one that is a matter of luck."""
    rule = objective(times={"type": "uniform", "stratified": True}).times
    for step in range(20):
        u = rule.quantiles(Draws(1, step, tuple(range(32))), "time")
        counts = torch.histc(torch.tensor(u), bins=8, min=0, max=1)
        assert int(counts.min()) >= 3
        assert int(counts.max()) <= 5
        half = rule.quantiles(Draws(1, step, tuple(range(16, 32))), "time")
        assert half == u[16:]  # another process's share of the same step


DROPOUT = ConditionDropout(
    rates={"text": 0.5, "layout": 0.2}, none=0.1, all=0.15, alone={"text": 0.25, "semantic": 0.1}
)
NAMES = ("text", "label", "layout", "semantic")


def test_dropout_happens_at_its_rates() -> None:
    """4000 rows: shares within 3.5 standard deviations (0.028 for a share of a half)."""
    kept = DROPOUT.kept(NAMES, Draws(0, 0, tuple(range(4000))))
    rows = torch.stack([kept[name] for name in NAMES])
    for name, rate in DROPOUT.expected(NAMES).items():
        assert float((~kept[name]).float().mean()) == pytest.approx(rate, abs=0.028)
    alone = (rows.sum(0) == 1) & kept["text"]
    assert float(alone.float().mean()) == pytest.approx(0.25, abs=0.028)  # label is never dropped by the last rule
    assert float((rows.sum(0) == 0).float().mean()) == pytest.approx(0.1, abs=0.02)
    everything = 0.15 + 0.4 * 0.5 * 0.8
    assert float((rows.sum(0) == 4).float().mean()) == pytest.approx(everything, abs=0.028)


def test_dropout_of_a_row_does_not_depend_on_the_other_rows() -> None:
    whole = DROPOUT.kept(NAMES, Draws(5, 9, tuple(range(8))))
    part = DROPOUT.kept(NAMES, Draws(5, 9, (6, 2)))
    for name in NAMES:
        assert part[name].tolist() == whole[name][[6, 2]].tolist()


def test_dropout_that_cannot_be() -> None:
    with pytest.raises(SpecError, match="add up to"):
        ConditionDropout(none=0.5, alone={"text": 0.7})
    with pytest.raises(CompositionError, match="txet") as caught:
        ConditionDropout(rates={"txet": 0.5}).check(NAMES)
    assert caught.value.where == "objective.dropout.rates" and "text" in str(caught.value.fits)


def stage(prediction: str = "eps", **fields: Any) -> DenoiserStage:
    spec = {"type": "discrete", "config": {"prediction": prediction}}
    if prediction in ("flow", "edm"):
        spec = {"type": prediction, "config": {}}
    unet = {"channels": 3, "widths": [8, 8], "blocks": 1, "norm_groups": 4, "heads": 2, "vector": "identity"}
    model = {
        "codec": {"type": "identity"},
        "denoiser": {"type": "unet", "config": unet | {"time_dim": 16}},
        "process": spec,
        "conditioners": {
            "label": {"type": "label", "config": {"n_classes": 4, "null_class": 3, "emit": "vector", "dim": 16}}
        },
    }
    made = DenoiserStage(ModelSection.of(model, "model"), objective(**fields), Path(), seed=1)
    with torch.no_grad():  # zero-initialised layers would hide what the network is given
        generator = torch.Generator().manual_seed(0)
        for parameter in made.turn.trained.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return made


def batch(rows: int = 5, step: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(step)
    latents = torch.randn(rows, 3, SIDE, SIDE, generator=generator)
    inputs = [{"label": i % 3} for i in range(rows)]
    ids = tuple(map(str, range(rows)))
    return Batch(ids, None, latents, None, inputs, (SIDE, SIDE), Draws(7, step, tuple(range(rows))))


def reference(
    made: DenoiserStage, given: Batch, prediction: str, factor: Callable[[float], float], norm: str
) -> Tensor:
    """The loss written out in the process's own frame, row by row."""
    pipe, total = made.pipeline, []
    times = given.draws.uniform("time").tolist()
    noise = given.draws.normal("noise", given.latents.shape[1:])
    for i, u in enumerate(times):
        x0, n = given.latents[i : i + 1], noise[i : i + 1]
        sigma = pipe.process.sigma(u)
        snr = sigma**-2
        if prediction == "flow":
            t = sigma / (1 + sigma)
            seen, time, target = (1 - t) * x0 + t * n, 1000 * t, n - x0
        elif prediction == "edm":
            total_std = math.sqrt(sigma**2 + 0.25)
            seen, time = (x0 + sigma * n) / total_std, math.log(sigma) / 4
            target = (x0 - 0.25 / total_std**2 * (x0 + sigma * n)) * total_std / (sigma * 0.5)
        else:
            bar = 1 / (1 + sigma**2)
            seen, time = math.sqrt(bar) * x0 + math.sqrt(1 - bar) * n, float(int(u * 1000))
            target = {"eps": n, "x0": x0, "v": math.sqrt(bar) * n - math.sqrt(1 - bar) * x0}[prediction]
        label = pipe.conditioners["label"]([given.inputs[i]["label"]])
        context = pipe.denoiser.prepare({"vector": label})
        off = pipe.denoiser(seen, torch.tensor([time]), context) - target
        total.append(factor(snr) * (off.abs() if norm == "l1" else off**2).mean())
    return torch.stack(total).mean()


CASES = [("eps", "l2"), ("v", "l2"), ("x0", "l1"), ("flow", "l2"), ("edm", "l2")]


@pytest.mark.parametrize(("prediction", "norm"), CASES)
def test_the_loss_is_the_formula(prediction: str, norm: str) -> None:
    """To 1e-4: float32 sums in another order, and noise levels up to 157 times the picture's scale."""
    plain = stage(prediction, norm=norm)
    got = plain.turn(batch(), 2)
    want = reference(plain, batch(), prediction, lambda snr: 1.0, norm)
    assert torch.allclose(got.total, want, rtol=1e-4)
    assert got.parts.keys() == {"simple"} and torch.equal(got.total, got.parts["simple"])


@pytest.mark.parametrize("name", ["min-snr", "snr", "truncated-snr", "p2", "debiased"])
@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_the_weighted_loss_is_the_formula(name: str, prediction: str) -> None:
    fields, printed = PRINTED[name]
    if prediction not in printed:
        return
    made = stage(prediction, weighting={"type": name, **fields})
    want = reference(made, batch(), prediction, printed[prediction], "l2")
    assert torch.allclose(made.turn(batch(), 2).total, want, rtol=1e-4)


def test_dropped_rows_see_the_null() -> None:
    """A row whose class is dropped costs what the null class costs."""
    dropped = stage(dropout={"rates": {"label": 1.0}})
    given = batch()
    nulls = Batch(given.ids, None, given.latents, None, [{}] * 5, given.size, given.draws)
    kept = stage()
    assert torch.equal(dropped.turn(given, 2).total, kept.turn(nulls, 2).total)
    assert not torch.equal(kept.turn(given, 2).total, kept.turn(nulls, 2).total)
    row = kept.pipeline.conditioners["label"].embedding.weight[3]
    null = kept.pipeline.conditioning([{}] * 5, size=given.size).view()
    assert all(torch.equal(signal.value, row.expand(5, -1)) for signal in null.values())


def test_the_bound_and_its_learned_variance() -> None:
    """0.7 (l / exp(logvar) + logvar) + 0.001 lvlb l, and gradients where they belong."""
    made = stage("eps", simple=0.7, elbo=1e-3, logvar={"init": 0.2, "train": True})
    loss = made.turn(batch(), 2)
    plain = loss.terms["error"]
    assert torch.allclose(loss.parts["simple"], 0.7 * (plain / math.exp(0.2) + 0.2), rtol=1e-5)
    assert loss.parts.keys() == {"simple", "elbo"} == made.turn.reaches().keys()
    groups = made.turn.groups()
    assert made.turn.reaches()["elbo"] == {"denoiser", "label"} == groups.keys() - {"logvar"}
    for part, reached in made.turn.reaches().items():
        for name, parameters in groups.items():
            grads = torch.autograd.grad(loss.parts[part], parameters, retain_graph=True, allow_unused=True)
            assert any(g is not None and bool(g.any()) for g in grads) == (name in reached)


def test_the_bound_needs_timesteps() -> None:
    with pytest.raises(SpecError, match="no timesteps"):
        stage("flow", elbo=1.0)
    assert set(elbo_weights(process("v"))) == {1.0}


def test_misspelt_keys_are_named() -> None:
    with pytest.raises(SpecError, match="gama"):
        objective(weighting={"type": "min-snr", "gama": 5})
    with pytest.raises(SpecError, match="min-snr"):
        objective(weighting={"type": "minsnr"})
    schema = TypeAdapter(DenoiserObjective).json_schema()
    assert "min-snr" in str(schema)
