"""The stage that trains LoRAs: only the changes learn, begin at nothing, and come back from the file that is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
import yaml
from ldmkit_checkpoints.lora.writing import write_lora
from ldmkit_training.before.plan import make_plan
from ldmkit_training.before.recipe import Recipe, overridden, parse_recipe
from ldmkit_training.check_command import checked
from ldmkit_training.loop.engine import Engine
from ldmkit_training.stages.lora.section import LoraSection
from ldmkit_training.stages.lora.stage import new_lora
from ldmkit_training.stages.lora.targets import chosen
from started import TEXT as TEXT_CONFIG
from started import started
from tiny import assert_same, base, tensors, train

import ldmkit
from ldmkit import CompositionError, InputError, RunError, SpecError

TEXT = "two trees and a red house"
LORA = {"rank": 3, "alpha": 2.0, "conditioners": {"text": ["qkv", "fc1"]}}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return started(tmp_path_factory.mktemp("start") / "model")


def recipe(start: Path, out: Path, *overrides: str, **lora: Any) -> Recipe:
    data = {"stage": "lora", **base(out), "model": {"start": str(start)}, "lora": {**LORA, **lora}, "probe": None}
    return parse_recipe(overridden(data, overrides))


def drawn(pipe: ldmkit.Pipeline, **options: Any) -> torch.Tensor:
    return pipe({"text": TEXT}, steps=2, seeds=[3], guidance=2.0, **options).latents


VARIANTS: dict[str, dict[str, Any]] = {
    "diffusers": {},
    "kohya": {"layout": "kohya"},
    "dora of every layer": {"dora": True, "targets": ["*"], "conditioners": {"text": ["*"]}},
    "ranks": {"ranks": {"to_q": 2, "mid.*": 1}, "targets": ["to_q", "to_k", "conv_1"], "dropout": 0.2},
    "text alone": {"targets": []},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_file_draws_what_the_trained_pipeline_draws(start: Path, tmp_path: Path, name: str) -> None:
    """From nothing, bit for bit, to something; and the file, read by `with_lora`, is what was trained."""
    plain = drawn(ldmkit.load(start))
    engine = Engine(recipe(start, tmp_path / "run", **VARIANTS[name]), Path())
    stage: Any = engine.stage
    assert torch.equal(drawn(stage.pipeline), plain), "the identity at first"
    outcome = engine.run()
    assert outcome.model is not None and [path.name for path in outcome.model.iterdir()] == [
        "pytorch_lora_weights.safetensors"
    ]
    with engine.averaged():
        want = drawn(stage.pipeline)
    assert float((want - plain).abs().max()) > 1e-3, "a change that would be noticed"
    assert torch.equal(drawn(ldmkit.load(start).with_lora(outcome.model)), want)


def test_the_base_stays_as_it_was(start: Path, tmp_path: Path) -> None:
    before = tensors(start)
    engine = Engine(recipe(start, tmp_path / "run", dora=True), Path())
    engine.run()
    pipe: Any = engine.stage
    pipe.pipeline.save(tmp_path / "whole")
    after = {key: t for key, t in tensors(tmp_path / "whole").items() if key in before}
    assert_same(before, after)
    assert set(engine.stage.frozen) == {"codec", "denoiser", "text", "layout"}


def test_a_base_that_changed_is_an_error(start: Path, tmp_path: Path) -> None:
    engine = Engine(recipe(start, tmp_path / "run"), Path())
    step = engine.steps.run

    def careless(number: int, parts: Any) -> None:
        step(number, parts)
        with torch.no_grad():
            next(iter(engine.stage.frozen["denoiser"].parameters())).mul_(1.001)

    engine.steps.run = careless  # type: ignore[method-assign]
    with pytest.raises(RunError, match="weights of 'denoiser', which are frozen") as caught:
        engine.run()
    assert caught.value.code == "run.frozen-changed" and not (tmp_path / "run" / "model").exists()


def test_a_run_in_two_pieces_is_the_same_run(start: Path, tmp_path: Path) -> None:
    train(recipe(start, tmp_path / "whole", dropout=0.3))
    train(recipe(start, tmp_path / "pieces", "steps=4", "schedule.type=constant", dropout=0.3))
    train(recipe(start, tmp_path / "whole2", "schedule.type=constant", dropout=0.3))
    train(recipe(start, tmp_path / "pieces", "schedule.type=constant", dropout=0.3))
    assert_same(tensors(tmp_path / "whole2" / "model"), tensors(tmp_path / "pieces" / "model"))


def test_dropout_acts_in_training_alone(start: Path, tmp_path: Path) -> None:
    train(recipe(start, tmp_path / "without"))
    train(recipe(start, tmp_path / "with", dropout=0.5))
    one, other = tensors(tmp_path / "without" / "model"), tensors(tmp_path / "with" / "model")
    assert any(not torch.equal(one[key], other[key]) for key in one)
    pipe = ldmkit.load(start).with_lora(tmp_path / "with" / "model")
    assert torch.equal(drawn(pipe), drawn(pipe))


def test_the_self_check_and_the_plan(start: Path, tmp_path: Path) -> None:
    made = recipe(start, tmp_path / "run", "previews.every=6", "previews.count=2", "previews.steps=2", dora=True)
    assert [check for check in checked(made, Path()) if not check.passed] == []
    plan = make_plan(made, Path())
    learning = {line.name: line.trained for line in plan.parts}
    assert learning.pop("lora") > 0 and not any(learning.values())
    assert any("lora: new, changes" in note for note in plan.notes)


def test_previews_validation_checkpointing_and_bfloat16(start: Path, tmp_path: Path) -> None:
    options = ("previews.every=3", "previews.count=2", "previews.steps=2", "gradient_checkpointing=true")
    outcome = train(recipe(start, tmp_path / "run", *options, "precision=bfloat16", dora=True))
    assert outcome.step == 6 and (tmp_path / "run" / "previews" / "step-00000006.png").is_file()
    assert "validation/loss" in (tmp_path / "run" / "log.jsonl").read_text()


def test_gradient_checkpointing_changes_no_bit(start: Path, tmp_path: Path) -> None:
    train(recipe(start, tmp_path / "plain", dropout=0.2))
    train(recipe(start, tmp_path / "less", "gradient_checkpointing=true", dropout=0.2))
    assert_same(tensors(tmp_path / "plain" / "model"), tensors(tmp_path / "less" / "model"))


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"targets": ["to_kq"]}, "no layer of 'denoiser' fits 'to_kq'.*did you mean 'to_q'|known: .*to_q"),
        ({"targets": ["attn3.to_q"]}, "no layer of 'denoiser' fits 'attn3.to_q'"),
        ({"conditioners": {"txt": ["qkv"]}}, "no conditioner 'txt'.*text"),
        ({"conditioners": {"text": ["q_proj"]}}, "no layer of 'text' fits 'q_proj'.*qkv"),
        ({"conditioners": {"layout": ["*"]}}, "'layout' has no layers that can be changed.*denoiser, text"),
        ({"ranks": {"conv_9": 2}}, "none of the .* layers to change fits 'conv_9'"),
    ],
)
def test_layers_that_are_not_there(start: Path, tmp_path: Path, lora: dict[str, Any], said: str) -> None:
    with pytest.raises(CompositionError, match=said):
        recipe(start, tmp_path / "run", **lora).make_stage(Path())


@pytest.mark.parametrize(
    "lora",
    [
        {"rank": 0}, {"rank": -1}, {"rank": 2.5}, {"alpha": 0}, {"alpha": float("nan")}, {"dropout": 1.0},
        {"layout": "a1111"}, {"targets": [], "conditioners": {}}, {"ranks": {"to_q": 0}}, {"targets": [""]},
        {"rnak": 3},
    ],
)  # fmt: skip
def test_values_that_make_no_sense(start: Path, tmp_path: Path, lora: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="lora"):
        recipe(start, tmp_path, **lora)


def test_a_base_without_ports(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ldmkit_denoisers.unet import UNet

    plain = UNet.__init__

    def bare(self: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        self.ports = {name: port for name, port in self.ports.items() if not name.startswith(("linear.", "conv."))}

    monkeypatch.setattr(UNet, "__init__", bare)
    with pytest.raises(CompositionError, match="'denoiser' has no layers that can be changed") as caught:
        recipe(start, tmp_path / "run").make_stage(Path())
    assert caught.value.code == "compose.no-ports"


def test_a_folder_with_something_else_is_left_alone(start: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(recipe(start, out))
    train(recipe(start, out, "steps=7"))  # its own is replaced
    (out / "model" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        Engine(recipe(start, out, "steps=8"), Path())
    assert (out / "model" / "notes.txt").read_text() == "mine"


def test_the_resolved_recipe_trains_again(start: Path, tmp_path: Path) -> None:
    train(recipe(start, tmp_path / "run"))
    data = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    train(parse_recipe({**data, "out": str(tmp_path / "again")}))
    assert_same(tensors(tmp_path / "run" / "model"), tensors(tmp_path / "again" / "model"))


def test_a_denoiser_of_others_is_named_by_its_own_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network without a published layout, and a text encoder without one: their file comes back in both layouts."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "thirdparty" / "v2" / "src"))
    from thirdparty_v2.network import Ladder

    words = tiny_parts.part("conditioner", "ldm-text", {**TEXT_CONFIG, "dim": 6}, seed=6)
    pipe = ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}), denoiser=Ladder(), process=ldmkit.get("process", "discrete")(),
        conditioners={"words": words}, defaults={"size": (8, 8), "steps": 2},
    )  # fmt: skip
    section = LoraSection(rank=2, alpha=3.0, targets=("*",), conditioners={"words": ("*",)})
    lora = new_lora(section, pipe, chosen(section, pipe))
    for parameter in lora.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    lora.eval().requires_grad_(False)
    want = pipe.with_adapter("lora", lora, {})({"words": [2, 5, 7, 3]}, seeds=[0]).latents
    assert not torch.equal(want, pipe({"words": [2, 5, 7, 3]}, seeds=[0]).latents)
    for layout in ("diffusers", "kohya"):
        file = tmp_path / f"{layout}.safetensors"
        write_lora(file, lora, pipe, layout)  # type: ignore[arg-type]
        assert torch.equal(pipe.with_lora(file)({"words": [2, 5, 7, 3]}, seeds=[0]).latents, want)
