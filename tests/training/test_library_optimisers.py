"""Optimisers of other libraries: their own updates, exact resumption, and advice where they are missing."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from ldmkit_training.before.same_run import check_same_run
from ldmkit_training.loop import checkpoints, libraries
from ldmkit_training.loop.optimisers import OptimiserSection, optimiser_plain, optimiser_tensors, restore_optimiser
from torch import nn

from ldmkit import SourceError, SpecError

SECTIONS: dict[str, dict[str, Any]] = {
    "adamw8bit": {"lr": 1e-3},
    "adam8bit": {"lr": 1e-3, "options": {"min_8bit_size": 1024}},
    "adafactor": {"lr": 1e-3, "options": {"scale_parameter": True, "clip_threshold": 0.5}},
    "prodigy": {"lr": 1.0, "weight_decay": 0.1, "options": {"d_coef": 2.0, "safeguard_warmup": True}},
}


def there(name: str) -> None:
    pytest.importorskip(libraries.LIBRARIES[name].module.partition(".")[0])


class Net(nn.Module):
    """Large enough a matrix for eight bits (4096 numbers), and a bias that is not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(64, 128), nn.Linear(128, 8)
        nn.init.zeros_(self.two.weight)  # as LoRA's: Prodigy keeps one zero of it

    def step(self, optimiser: torch.optim.Optimizer, number: int) -> None:
        made = torch.Generator().manual_seed(number)
        optimiser.zero_grad()
        loss = (self.two(self.one(torch.randn(16, 64, generator=made)).relu()) - 1).square().mean()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("name", SECTIONS)
def test_the_updates_are_the_librarys_own(name: str) -> None:
    there(name)
    ours, theirs = Net(), Net()
    section = OptimiserSection.of({"type": name, "decay": "all", **SECTIONS[name]})
    optimiser = section.build(ours, "net")
    library = libraries.LIBRARIES[name]
    made = getattr(importlib.import_module(library.module), library.name)
    fixed = {"relative_step": False, "warmup_init": False} if name == "adafactor" else {}
    options = {**fixed, **SECTIONS[name].get("options", {})}
    other = made(theirs.parameters(), lr=section.lr, weight_decay=section.weight_decay, **options)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    for number in range(12):
        ours.step(optimiser, number)
        theirs.step(other, number)
    for key, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[key]), key
        assert not torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", SECTIONS)
def test_its_state_comes_back_bit_for_bit(name: str) -> None:
    there(name)
    section = OptimiserSection.of({"type": name, **SECTIONS[name]})
    whole, stopped = Net(), Net()
    optimiser, before = section.build(whole, "net"), section.build(stopped, "net")
    for number in range(10):
        whole.step(optimiser, number)
    for number in range(5):
        stopped.step(before, number)
    kept = {key: tensor.clone() for key, tensor in optimiser_tensors(before, stopped).items()}
    plain = json.loads(json.dumps(optimiser_plain(before, stopped)))
    resumed = Net()
    resumed.load_state_dict(stopped.state_dict())
    after = section.build(resumed, "net")
    restore_optimiser(after, resumed, kept, plain)
    for number in range(5, 10):
        resumed.step(after, number)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize("name", SECTIONS)
def test_a_run_goes_on_in_the_same_bits(tmp_path: Path, name: str) -> None:
    there(name)
    overrides = ["schedule={type: constant}", "steps=4", "validation=null", "data.validation=null"]
    section = {"type": name, **SECTIONS[name]}

    def recipe(out: str, steps: int) -> Any:
        data = tiny.denoiser_data(tmp_path / out, *overrides, f"steps={steps}")
        return tiny.parse_recipe(data | {"optimiser": section})

    tiny.train(recipe("whole", 4))
    tiny.train(recipe("stopped", 2))
    tiny.train(recipe("stopped", 4))
    tiny.assert_same(tiny.tensors(tmp_path / "whole/model"), tiny.tensors(tmp_path / "stopped/model"))
    state = tmp_path / "stopped/checkpoints/step-00000004/state.json"
    assert json.loads(state.read_text())["optimisers"]["denoiser"]["groups"]


def test_numbers_that_are_missing_are_a_damaged_checkpoint(tmp_path: Path) -> None:
    there("adafactor")
    made = tiny.denoiser_data(tmp_path / "run", "steps=2", "schedule={type: constant}", "checkpoints={every: 2}")
    made["optimiser"] = {"type": "adafactor"}
    tiny.train(tiny.parse_recipe(made))
    folder = checkpoints.folder_of(tmp_path / "run/checkpoints", 2)
    kept = checkpoints.read(folder)
    for wrong in (None, {"denoiser": {"states": {}, "groups": []}}, {"denoiser": {"states": 3, "groups": [{}, {}]}}):
        state = {key: value for key, value in kept.state.items() if key != "optimisers"}
        shutil.rmtree(tmp_path / "run/checkpoints")
        (tmp_path / "run/checkpoints").mkdir()
        found = checkpoints.Checkpoint(2, kept.tensors, state | ({"optimisers": wrong} if wrong else {}))
        checkpoints.write(tmp_path / "run/checkpoints", found, keep=1)
        with pytest.raises(SourceError, match="no-good-checkpoint"):
            tiny.train(tiny.parse_recipe(made | {"steps": 3}))


def test_a_library_that_is_not_there_is_named_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    for name, package in (("adamw8bit", "bitsandbytes"), ("adafactor", "transformers"), ("prodigy", "prodigyopt")):
        with pytest.raises(SpecError) as caught:
            tiny.train(tiny.denoiser_recipe(tmp_path / "run", f"optimiser={{type: {name}, lr: 1.0}}"))
        assert caught.value.code == "spec.optimiser-missing" and f"pip install {package}" in str(caught.value.fits)
        assert not (tmp_path / "run").exists()


def test_options_that_no_library_has_are_refused() -> None:
    there("adafactor")
    with pytest.raises(SpecError, match="no option 'clip_treshold'"):
        OptimiserSection.of({"type": "adafactor", "options": {"clip_treshold": 1.0}}).check(["net"])
    for name in ("lr", "relative_step", "params"):
        with pytest.raises(SpecError, match="no option"):
            OptimiserSection.of({"type": "adafactor", "options": {name: 1}}).check(["net"])
    with pytest.raises(SpecError, match="takes no options"):
        OptimiserSection.of({"type": "adamw", "options": {"amsgrad": True}})
    with pytest.raises(SpecError, match="finds its rate itself"):
        OptimiserSection.of({"type": "prodigy"})
    with pytest.raises(SpecError) as caught:
        OptimiserSection.of({"type": "adafactor", "options": {"clip_threshold": "x", "warmup_init": True}}).build(
            Net(), "net"
        )
    assert caught.value.code == "spec.option"


def test_a_checkpoint_of_an_older_version_knows_no_new_keys(tmp_path: Path) -> None:
    made = tiny.denoiser_recipe(tmp_path / "run", "steps=2", "schedule={type: constant}")
    tiny.train(made)
    folder = checkpoints.folder_of(tmp_path / "run/checkpoints", 2)
    found = checkpoints.read(folder)
    del found.state["recipe"]["optimiser"]["options"], found.state["recipe"]["data"]["captions"]
    known = {key: found.state[key] for key in ("frozen", "data", "parts")}
    assert check_same_run(found, folder, made, *known.values()) == []
    found.state["recipe"]["optimiser"]["lr"] = 3.0
    with pytest.raises(SpecError, match=r"optimiser\.lr = 3\.0"):
        check_same_run(found, folder, made, *known.values())
