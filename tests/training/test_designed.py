"""What a part's author froze is not trained, and stays in eval mode, however the part was built or loaded."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from ldmkit_codecs.kl import KLCodec
from ldmkit_conditioners.label import Label
from ldmkit_denoisers.unet import UNet
from ldmkit_training.before.plan import part_lines
from ldmkit_training.before.recipe import build_stage, parse_recipe
from ldmkit_training.stages.designed import learn

import ldmkit
from ldmkit import CompositionError
from ldmkit.testing import check_conditioner

FROZEN = "mid"
"""The U-Net's child that the author of these tests' U-Net freezes, with dropout in it."""


@pytest.fixture
def author(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """U-Nets whose middle is a frozen tower."""
    plain = UNet.__init__

    def frozen(self: UNet, config: Any = None) -> None:
        plain(self, config)
        self.get_submodule(FROZEN).add_module("noise", torch.nn.Dropout(0.5))
        self.get_submodule(FROZEN).requires_grad_(False).eval()

    monkeypatch.setattr(UNet, "__init__", frozen)
    yield


def tower(part: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: t.clone() for key, t in part.get_submodule(FROZEN).state_dict().items()}


@pytest.mark.usefixtures("author")
def test_it_is_not_trained_from_first_weights_nor_from_those_of_a_start(tmp_path: Path) -> None:
    recipe = tiny.denoiser_recipe(tmp_path / "run", "optimiser.weight_decay=0.1", "optimiser.decay=all")
    before = tower(build_stage(recipe, tmp_path).pipeline.denoiser)
    tiny.train(recipe)
    tiny.assert_same(before, tower(ldmkit.load(tmp_path / "run/model").denoiser))
    data = tiny.denoiser_data(tmp_path / "next")
    data["model"]["start"] = str(tmp_path / "run")
    tiny.train(parse_recipe(data))
    trained = ldmkit.load(tmp_path / "next/model").denoiser
    tiny.assert_same(before, tower(trained))
    start = ldmkit.load(tmp_path / "run/model").denoiser.state_dict()
    moved = {key for key, tensor in trained.state_dict().items() if not torch.equal(tensor, start[key])}
    assert moved and not any(key.startswith(FROZEN) for key in moved)


@pytest.mark.usefixtures("author")
def test_it_stays_in_eval_mode_and_the_plan_counts_it_as_frozen(tmp_path: Path) -> None:
    stage = build_stage(tiny.denoiser_recipe(tmp_path), tmp_path)
    denoiser = stage.pipeline.denoiser
    for module in (stage.turns["denoiser"].train(), copy.deepcopy(denoiser).train()):
        inner = module.pipeline.denoiser if hasattr(module, "pipeline") else module
        assert inner.training and not any(m.training for m in inner.get_submodule(FROZEN).modules())
        assert any(m.training for name, m in inner.named_modules() if name and not name.startswith(FROZEN))
    count = sum(p.numel() for p in denoiser.get_submodule(FROZEN).parameters())
    (line,) = [line for line in part_lines(stage) if line.name == "denoiser"]
    assert line.frozen == count > 0
    assert any(f"denoiser: {FROZEN} (" in note and "frozen by its author" in note for note in stage.notes)


def test_a_conditioner_that_is_frozen_in_whole_has_nothing_to_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Label.__init__
    monkeypatch.setattr(Label, "__init__", lambda self, c=None: (plain(self, c), self.requires_grad_(False).eval())[0])
    stage = build_stage(tiny.denoiser_recipe(tmp_path), tmp_path)
    assert set(stage.turns["denoiser"].groups()) == {"denoiser"} and "label" in stage.frozen
    assert not stage.pipeline.conditioners["label"].train().training
    with pytest.raises(CompositionError) as caught:
        build_stage(tiny.denoiser_recipe(tmp_path, "model.denoiser.train=false"), tmp_path)
    assert caught.value.code == "compose.nothing-to-train"


@pytest.mark.parametrize("train", ["all", "decoder"])
def test_a_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: str) -> None:
    plain = KLCodec.__init__

    def frozen(self: KLCodec, config: Any = None) -> None:
        plain(self, config)
        next(m for name, m in self.named_modules() if name == "decoder.conv_in").requires_grad_(False)

    monkeypatch.setattr(KLCodec, "__init__", frozen)
    overrides = () if train == "all" else ("model.train=decoder", "objective.statistics=none")
    stage = build_stage(tiny.codec_recipe(tmp_path, *overrides), tmp_path)
    trained = {name for name, p in stage.codec.named_parameters() if p.requires_grad}
    assert "decoder.conv_out.weight" in trained and "decoder.conv_in.weight" not in trained
    assert ("encoder.conv_in.weight" in trained) == (train == "all")


def test_a_part_of_nothing_frozen_is_trained_in_whole() -> None:
    part = Label({"n_classes": 3, "dim": 8}).requires_grad_(False).eval()
    assert learn(part) == [] and part.training and all(p.requires_grad for p in part.parameters())
    assert part.kept_in_eval == frozenset()


class FreezesWhereItHasNumbers(Label):
    """Its table looks frozen to whoever has its weights, and is trained all the same."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        if not next(self.parameters()).is_meta:
            self.requires_grad_(False)


def test_the_kit_wants_the_same_to_be_frozen_wherever_a_part_is_built() -> None:
    report = check_conditioner(FreezesWhereItHasNumbers)
    found = [failure for failure in report.failures if failure.check.name.endswith("meta")]
    assert found, "it has a table, which one of the two freezes"
    assert {failure.expected for failure in found} == {"the same parameters and modules frozen as on the CPU"}
    assert all("embedding.weight" in failure.came for failure in found), [failure.came for failure in found]
