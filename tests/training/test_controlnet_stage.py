"""The stage that trains ControlNets: nothing at first, zero convolutions before the rest, and a base that stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ldmkit_training.before.plan import make_plan
from ldmkit_training.before.recipe import Recipe, overridden, parse_recipe
from ldmkit_training.check_command import checked
from ldmkit_training.data.batches import Batches, validation_batches
from ldmkit_training.data.section import open_data
from ldmkit_training.loop.engine import Engine
from PIL import Image
from started import started
from tiny import assert_same, base, tensors, train

import ldmkit
from ldmkit import CompositionError, InputError, PluginError, SpecError

CANNY = {"type": "canny", "config": {"low": 60, "high": 120}}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return started(tmp_path_factory.mktemp("start") / "model")


def recipe(model: Path, out: Path, *overrides: str, **control: Any) -> Recipe:
    data = {"stage": "controlnet", **base(out), "model": {"start": str(model)}, "controlnet": control, "probe": None}
    data["data"] = {**data["data"], "extract": {"hint": CANNY}}
    data["objective"] = {"dropout": {"rates": {"text": 0.5, "layout": 0.5}}}
    return parse_recipe(overridden(data, overrides))


def hint(seed: int = 0) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 2, (16, 16), dtype=np.uint8) * 255
    return Image.fromarray(levels).convert("RGB")


def drawn(pipe: ldmkit.Pipeline, **inputs: Any) -> torch.Tensor:
    return pipe({"text": "a red house", **inputs}, steps=2, seeds=[3], guidance=2.0).latents


def with_gradient(stage: Any, batch: Any) -> set[str]:
    """Names of the ControlNet's tensors whose gradient of one step is not zero."""
    stage.control.zero_grad(set_to_none=True)
    stage.turn(batch, 0).total.backward()
    return {name for name, p in stage.control.named_parameters() if p.grad is not None and bool(p.grad.any())}


def test_it_begins_as_the_base_and_learns_from_its_zero_convolutions_inwards(start: Path, tmp_path: Path) -> None:
    """In the first step the zero convolutions alone have a gradient; after it all but the hint encoder before its last,
    zero, convolution; after two steps everything."""
    made = recipe(start, tmp_path / "run")
    stage: Any = made.make_stage(Path())
    assert torch.equal(drawn(stage.pipeline, hint=hint()), drawn(ldmkit.load(start))), "bit for bit"
    batch = Batches(open_data(made.data, Path())[0], made.data, seed=0, names=stage.inputs).at(0)[0]
    optimiser = torch.optim.AdamW(stage.control.parameters(), 1e-3)
    names = {name for name, _ in stage.control.named_parameters()}
    last = f"hint.convs.{len(stage.control.hint.convs) - 1}."
    assert with_gradient(stage, batch) == {name for name in names if name.startswith("zero")}
    optimiser.step()
    inner = {name for name in names if name.startswith("hint.") and not name.startswith(last)}
    assert with_gradient(stage, batch) == names - inner
    optimiser.step()
    assert with_gradient(stage, batch) == names


def test_the_base_stays_and_the_folder_comes_back(start: Path, tmp_path: Path) -> None:
    before, plain = tensors(start), drawn(ldmkit.load(start))
    engine = Engine(recipe(start, tmp_path / "run"), Path())
    stage: Any = engine.stage
    outcome = engine.run()
    assert outcome.model is not None
    assert {path.name for path in outcome.model.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    with engine.averaged():
        want = drawn(stage.pipeline, hint=hint())
        assert not torch.equal(want, drawn(stage.pipeline, hint=hint(1))), "the hint counts"
    assert float((want - plain).abs().max()) > 1e-3
    base_model = ldmkit.load(start)
    assert torch.equal(drawn(base_model.with_adapter_file(outcome.model), hint=hint()), want)
    assert torch.equal(drawn(base_model), plain)
    stage.pipeline.save(tmp_path / "whole")
    assert_same(before, {key: t for key, t in tensors(tmp_path / "whole").items() if key in before})


def test_a_run_in_two_pieces_is_the_same_run(start: Path, tmp_path: Path) -> None:
    constant = "schedule.type=constant"
    train(recipe(start, tmp_path / "whole", constant))
    train(recipe(start, tmp_path / "pieces", constant, "steps=3"))
    train(recipe(start, tmp_path / "pieces", constant))
    assert_same(tensors(tmp_path / "whole" / "model"), tensors(tmp_path / "pieces" / "model"))


def test_it_goes_on_from_a_folder(start: Path, tmp_path: Path) -> None:
    train(recipe(start, tmp_path / "one"))
    second: Any = recipe(start, tmp_path / "two", start=str(tmp_path / "one")).make_stage(Path())
    want = drawn(ldmkit.load(start).with_adapter_file(tmp_path / "one" / "model"), hint=hint())
    assert torch.equal(drawn(second.pipeline, hint=hint()), want)
    assert all(p.requires_grad for p in second.control.parameters())


def test_the_self_check_the_plan_and_previews(start: Path, tmp_path: Path) -> None:
    made = recipe(start, tmp_path / "run", "previews.every=6", "previews.count=2", "previews.steps=2")
    assert [check for check in checked(made, Path()) if not check.passed] == []
    plan = make_plan(made, Path())
    learning = {line.name: line.trained for line in plan.parts}
    assert learning.pop("control") > 0 and not any(learning.values())
    dropped = {line.input: line.dropped for line in plan.wiring}
    assert dropped["text"] == pytest.approx(0.5) and not dropped["hint"]
    train(made)
    assert (tmp_path / "run" / "previews" / "step-00000006.png").is_file()


def test_hints_are_those_of_the_picture_as_training_sees_it(start: Path, tmp_path: Path) -> None:
    """Mirrored, cropped and resized with it: extracted afterwards, and the same from a cache of latents."""
    moved = ("data.mirror=0.5", "data.fit=random-crop")
    made = recipe(start, tmp_path / "run", *moved)
    dataset, _ = open_data(made.data, Path())
    extractor: Any = ldmkit.get("extractor", "canny")(**CANNY["config"])
    for step in range(3):
        batch = Batches(dataset, made.data, seed=0, names=frozenset({"text", "hint"})).at(step)[0]
        assert batch.images is not None
        for image, inputs in zip(batch.images, batch.inputs, strict=True):
            found = extractor.parse(inputs["hint"], "hint")
            assert torch.equal(found, extractor.extract(image)) and bool((found > 0).any())
    train(recipe(start, tmp_path / "cached", *moved, "data.cache.folder=" + str(tmp_path / "c"), "data.cache.views=2"))


def test_a_column_of_hints(start: Path, tmp_path: Path) -> None:
    """Hints that are data; without any, a sample that has none is named."""
    folder = tmp_path / "data"
    (folder / "hints").mkdir(parents=True)
    lines = []
    for i in range(4):
        hint(i).save(folder / f"{i}.png")
        hint(i + 9).save(folder / "hints" / f"{i}.png")
        lines.append(f'{{"file_name": "{i}.png", "text": "a tree", "hint": "hints/{i}.png"}}')
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    source = (
        "data.extract={}",
        f"data.train={{type: folder, config: {{folder: {folder}, missing: allow}}}}",
        "data.validation=null",
    )
    outcome = train(recipe(start, tmp_path / "run", *source, "validation=null"))
    assert outcome.step == 6
    (folder / "metadata.jsonl").write_text("\n".join([*lines[:3], lines[3].replace('"hints/3.png"', "null")]))
    (folder / "hints" / "3.png").unlink()  # a picture that nothing names would be a sample
    with pytest.raises(InputError, match=r"3\.png.*no 'hint'"):
        Engine(recipe(start, tmp_path / "other", *source, "validation=null"), Path())


@pytest.mark.parametrize(
    ("overrides", "control", "error", "said"),
    [
        ((), {"widths": [4, 8]}, CompositionError, "2 widths, which halve the size 1 times.*factor|1 times smaller"),
        ((), {"channels": 2}, SpecError, "channels"),
        ((), {"start": "nowhere"}, ldmkit.SourceError, "nowhere"),
        (("objective.dropout.rates.hint=0.1",), {}, CompositionError, "no condition 'hint' that may be dropped"),
        (("data.extract.hint.type=cany",), {}, PluginError, "did you mean 'canny'"),
        (("data.extract.text={type: canny}",), {}, SpecError, "data have an input 'text', and one is extracted"),
        (("data.extract.hint={type: canny, config: {lwo: 30}}",), {}, SpecError, "lwo"),
    ],
)
def test_recipes_that_make_no_sense(
    start: Path, tmp_path: Path, overrides: tuple[str, ...], control: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        Engine(recipe(start, tmp_path / "run", *overrides, **control), Path())


def test_extractors_that_read_no_pictures(start: Path, tmp_path: Path) -> None:
    made = recipe(start, tmp_path / "run", "data.extract.hint={type: pose}")
    with pytest.raises((SpecError, PluginError), match="pose"):
        validation_batches(open_data(made.data, Path())[0], made.data, 2)
