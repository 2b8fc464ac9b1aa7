"""The self-check passes sound stages, and catches each fault that it is there for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from ldmkit_training.before.dropout_check import count_dropped
from ldmkit_training.before.recipe import build_stage
from ldmkit_training.before.selfcheck import Check, all_active, self_check
from ldmkit_training.check_command import FAILED, run_check
from ldmkit_training.stages.codec.turns import DiscriminatorTurn
from ldmkit_training.stages.denoiser.dropout import ConditionDropout
from ldmkit_training.stages.denoiser.objective import DenoiserTurn
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from toys import ToyStage, same, toy_batch, weights

from ldmkit import Batch, Loss, Stage


def checks_of(stage: Stage, source: Callable[[int], Batch] = toy_batch) -> dict[str, Check]:
    return {check.name: check for check in self_check(stage, source)}


def failures(stage: Stage, *only: str) -> dict[str, str]:
    found = self_check(stage, toy_batch, only=only, overfit_seconds=3)
    return {check.name: check.found for check in found if not check.passed}


def test_a_sound_stage_passes() -> None:
    stage = ToyStage(frozen_parts=("label",))
    found = checks_of(stage)
    assert all(check.passed for check in found.values()), found
    for name in ("updated: denoiser", "frozen: codec", "frozen: label", "reach: denoiser, simple", "overfit"):
        assert name in found
    assert {"dropout: layout", "dropout: label", "dropout: semantic"} <= found.keys()
    assert found["dropout: semantic"].wanted.startswith("0.3000 +- 0.04")


class Detached(DenoiserTurn):
    """Conditioners are trained, says the recipe; their signals are cut off."""

    def conditioning(self, batch: Batch) -> Any:
        return self.pipeline.conditioning(batch.inputs, size=batch.size, grad=False)


class Leaking(DenoiserTurn):
    """Claims that its loss does not train the layout's conditioner."""

    def reaches(self) -> Mapping[str, frozenset[str]]:
        return {"simple": frozenset({"denoiser", "label"})}


class Undeclared(DenoiserTurn):
    """A part of the loss of which nothing is said, and a claim about a part and a group that are not there."""

    def reaches(self) -> Mapping[str, frozenset[str]]:
        return {"other": frozenset(), "simple": frozenset({"nobody"})}

    def _loss(self, plain: torch.Tensor, *others: Any) -> Loss:
        loss = super()._loss(plain, *others)
        return loss._replace(parts={**loss.parts, "extra": plain.mean()})


class Unused(DenoiserTurn):
    """Has a parameter that no loss depends on, and that is in no group."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.spare = torch.nn.Parameter(torch.zeros(2))


class Thawing(DenoiserTurn):
    """Changes a frozen network's weights in passing, by the last bit."""

    def forward(self, batch: Batch, step: int) -> Loss:
        with torch.no_grad():
            weight = self.pipeline.conditioners["label"].embedding.weight
            weight.copy_(torch.nextafter(weight, weight + 1))
        return super().forward(batch, step)


class NeverDropped(DenoiserTurn):
    def context(self, conditioning: Any, kept: Any = None) -> Any:
        return super().context(conditioning, None)


DICE = torch.Generator().manual_seed(3)


class DroppedTwice(DenoiserTurn):
    """Twice the rate."""

    def context(self, conditioning: Any, kept: Any = None) -> Any:
        seed = 777 + int(torch.randint(10**6, (), generator=DICE))
        other = self.objective.dropout.kept(self.names, toy_batch(seed).draws)
        kept = kept and {name: keep & other[name] for name, keep in kept.items()}
        return super().context(conditioning, kept)


class NaN(DenoiserTurn):
    def _loss(self, plain: torch.Tensor, *others: Any) -> Loss:
        loss = super()._loss(plain, *others)
        bad = loss.total * float("nan")
        return Loss(bad, loss.terms, {"simple": bad})


class Raising(DenoiserTurn):
    def forward(self, batch: Batch, step: int) -> Loss:
        raise RuntimeError("no such thing")


FAULTS = [
    (Detached, "reach gradients", {"reach: denoiser, simple": "not label, layout", "gradients: denoiser": "none for"}),
    (Leaking, "reach", {"reach: denoiser, simple": "also layout"}),
    (Undeclared, "reach", {"reach: denoiser, extra": "does not say", "reach: denoiser, other": "no such part"}),
    (Undeclared, "reach", {"reach: denoiser, simple": "there is no group nobody"}),
    (Unused, "reach gradients", {"groups: denoiser": "in no group: spare", "gradients: denoiser": "none for spare"}),
    (NeverDropped, "dropout", {"dropout: semantic": "0.0000", "dropout: layout": "0.0000"}),
    (DroppedTwice, "dropout", {"dropout: semantic": "0.5", "dropout: label": "0.3"}),
    (Raising, "overfit dropout steps", {"overfit": "no such thing", "dropout": "no such thing"}),
    (NaN, "gradients overfit", {"overfit": "nan", "gradients: denoiser": "not finite"}),
]


IDS = [f"{turn.__name__}-{i}" for i, (turn, _, _) in enumerate(FAULTS)]


@pytest.mark.parametrize(("turn", "tests", "expected"), FAULTS, ids=IDS)
def test_faults_are_caught(turn: type[DenoiserTurn], tests: str, expected: dict[str, str]) -> None:
    found = failures(ToyStage(turn=turn), *tests.split())
    for name, words in expected.items():
        assert words in found.get(name, "(passed)"), found


def test_a_frozen_network_that_changes_by_one_bit_is_caught() -> None:
    found = failures(ToyStage(frozen_parts=("label",), turn=Thawing), "steps")
    assert found["frozen: label"] == "changed" and "frozen: codec" not in found


def test_a_loss_that_cannot_be_learnt_is_caught() -> None:
    class Random(DenoiserTurn):
        def forward(self, batch: Batch, step: int) -> Loss:
            fresh = toy_batch(int(torch.randint(10**6, (), generator=DICE)), len(batch.ids))
            target = torch.randn_like(self.latents(batch))
            made = self.predict(
                self.latents(batch), self.context(self.conditioning(batch)), target, [1.0] * len(fresh.ids)
            )
            loss = (made - torch.randn_like(made)).square().mean()
            return Loss(loss, {}, {"simple": loss})

    assert "overfit" in failures(ToyStage(turn=Random), "overfit")


def test_a_null_that_is_never_shown_is_noted_not_refused() -> None:
    stage = ToyStage(objective=DenoiserObjective(dropout=ConditionDropout(rates={"label": 0.5})))
    found = self_check(stage, toy_batch, only=["gradients"])
    assert all(check.passed for check in found)
    assert any("layout.empty has none: its condition is never dropped" in check.found for check in found)


def test_the_rules_of_the_dropout_are_counted_as_well() -> None:
    dropout = ConditionDropout(rates={"label": 0.5}, none=0.1, all=0.2, alone={"layout": 0.3})
    stage = ToyStage(objective=DenoiserObjective(dropout=dropout))
    before = weights(stage)
    counts, rows = count_dropped(stage.turn, toy_batch(0, 16))
    assert rows == 2048 and set(counts) == {"layout", "label", "semantic"}
    for name, share in dropout.expected(tuple(counts)).items():
        assert counts[name] / rows == pytest.approx(share, abs=0.05)
    assert same(before, weights(stage))
    stage.turn(toy_batch(1), 0)  # the spies are gone


@pytest.mark.parametrize("make", [tiny.codec_recipe, tiny.denoiser_recipe])
def test_tiny_recipes_pass_and_leave_nothing_behind(
    make: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_check(make(tmp_path / "run"), tmp_path) == 0
    assert list(tmp_path.iterdir()) == []
    assert "checks passed" in capsys.readouterr().out


class Idle(DiscriminatorTurn):
    """Has a loss of which nothing depends on it."""

    def forward(self, batch: Batch, step: int) -> Loss:
        loss = super().forward(batch, step)
        return Loss(loss.total * 0, loss.terms, {"discriminator": loss.total * 0})


def test_a_discriminator_that_learns_nothing_is_caught(tmp_path: Path) -> None:
    recipe = tiny.codec_recipe(tmp_path)
    stage = build_stage(recipe, tmp_path)
    assert all_active(stage) == 2
    turn = stage.turns["discriminator"]
    idle = Idle(turn.discriminator, turn.section, turn.read.codec)
    stage.turns = {"codec": stage.turns["codec"].train(), "discriminator": idle.train()}
    images = toy_batch(0, 4).images.repeat(1, 1, 2, 2)
    batch = Batch(tuple("abcd"), images, None, None, [{}] * 4, (16, 16), toy_batch(0, 4).draws)
    found = self_check(stage, lambda step: batch, only=["steps", "reach", "gradients"])
    assert {check.name for check in found if not check.passed} == {
        "updated: discriminator",
        "reach: discriminator, discriminator",
        "gradients: discriminator",
    }


def test_a_failed_check_is_a_failed_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConditionDropout, "kept", lambda self, names, draws: {})
    monkeypatch.setattr("ldmkit_training.before.selfcheck.TESTS", ("dropout",))
    recipe = tiny.denoiser_recipe(tmp_path)
    assert run_check(recipe, tmp_path, json=True) == FAILED == 7
