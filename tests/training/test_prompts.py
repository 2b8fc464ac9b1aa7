"""Previews of conditions of one's own, each from its seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from ldmkit_training.watch.observe import undisturbed
from ldmkit_training.watch.previews import Previews, PreviewsSection
from ldmkit_training.watch.prompts import Prompt, prompt_rows
from PIL import Image
from toys import ToyStage, ToyView

from ldmkit import InputError, SpecError

PROMPTS: list[Any] = [
    {"inputs": {"label": 1}, "seed": 7},
    {"inputs": {"label": 2}},
    {"inputs": {"layout": [{"label": "cat", "box": [0, 0, 0.5, 1]}]}, "seed": 7, "size": [16, 8]},
]


def sheet_pictures(section: PreviewsSection, stage: ToyStage) -> list[torch.Tensor]:
    rows = prompt_rows(section.prompts, stage.pipeline, (8, 8), section.seed, Path())
    previews = Previews(section, [], rows)
    with undisturbed(list(stage.turns.values())):
        from contextlib import nullcontext

        return previews._sampled(stage.pipeline, nullcontext())


def test_each_prompt_is_the_picture_of_its_seed_size_and_inputs() -> None:
    stage = ToyStage()
    section = PreviewsSection.of({"prompts": PROMPTS, "steps": 3, "seed": 40})
    assert section.count == 0
    found = sheet_pictures(section, stage)
    assert [tuple(image.shape[-2:]) for image in found] == [(8, 8), (8, 8), (16, 8)]
    seeds = (7, 41, 7)
    for image, prompt, seed in zip(found, section.prompts, seeds, strict=True):
        alone = stage.pipeline(prompt.inputs, size=prompt.size or (8, 8), seeds=[seed], steps=3).images[0]
        torch.testing.assert_close(image, alone, atol=1e-5, rtol=0)  # of a batch, sums in another order


def test_a_sheet_has_prompts_above_held_out_rows(tmp_path: Path) -> None:
    from toys import toy_batch

    stage = ToyStage()
    section = PreviewsSection.of({"prompts": PROMPTS, "steps": 2, "count": 2})
    rows = prompt_rows(section.prompts, stage.pipeline, (8, 8), 0, Path())
    sheet = Previews(section, [toy_batch(0, 4)], rows).sheet(ToyView(stage, tmp_path), 5)
    assert sheet is not None
    labels = [row.cells[0].label for row in sheet._rows]
    assert labels == ["prompt 1", "prompt 2", "prompt 3", "toy-0-0", "toy-0-1"]
    assert "seeds 7, 1, 7, 0, 1" in sheet.note
    sheet.render()


def test_a_run_draws_them_and_changes_nothing(tmp_path: Path) -> None:
    prompts = "[{inputs: {label: snow}, seed: 3}, {inputs: {label: lake}}]"
    watched = tiny.denoiser_recipe(tmp_path / "run", "steps=4", f"previews={{every: 2, steps: 2, prompts: {prompts}}}")
    tiny.train(watched)
    tiny.train(tiny.denoiser_recipe(tmp_path / "plain", "steps=4"))
    tiny.assert_same(tiny.tensors(tmp_path / "run/model"), tiny.tensors(tmp_path / "plain/model"))
    assert sorted(path.name for path in (tmp_path / "run/previews").iterdir()) == [
        "step-00000002.png", "step-00000004.png",
    ]  # fmt: skip
    tiny.train(
        tiny.denoiser_recipe(tmp_path / "run", "steps=5", "previews={every: 1, steps: 2, prompts: [{inputs: {}}]}")
    )


def test_paths_of_prompts_start_from_the_recipes_folder(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16, 3), 200, np.uint8)).save(tmp_path / "hint.png")
    data = tiny.denoiser_data(tmp_path / "run", "data.validation=null", "validation=null")
    data["model"]["conditioners"] = {"given": {"type": "image"}}
    data["model"]["denoiser"]["config"] |= {"attention": ["none", "none"], "context_dim": None, "in_channels": 6}
    data |= {"objective": {}, "steps": 1}
    (tmp_path / "d").mkdir()
    Image.fromarray(np.full((16, 16, 3), 20, np.uint8)).save(tmp_path / "d/0.png")
    (tmp_path / "d/metadata.jsonl").write_text('{"file_name": "0.png", "given": "0.png"}')
    data["data"]["train"] = {"type": "folder", "config": {"folder": "d"}}
    for name, fits in (("hint.png", True), ("hnt.png", False)):
        data["previews"] = {"every": 1, "steps": 2, "prompts": [{"inputs": {"given": name}}]}
        if fits:
            tiny.train(tiny.parse_recipe(data), tmp_path)
            continue
        with pytest.raises(InputError, match="hnt"):
            tiny.train(tiny.parse_recipe(data | {"steps": 2}), tmp_path)


@pytest.mark.parametrize("wrong", [
    "[{inputs: {lable: snow}}]", "[{inputs: {label: rain}}]", "[a house]",
    "[{inputs: {label: snow}, size: [16, 7, 3]}]",
    "[{label: snow}]", "[{inputs: {label: snow}, seed: -1}]",
])  # fmt: skip
def test_a_prompt_that_the_model_does_not_take_is_named_before_the_first_step(tmp_path: Path, wrong: str) -> None:
    with pytest.raises((InputError, SpecError)) as caught:
        tiny.train(tiny.denoiser_recipe(tmp_path / "run", f"previews={{prompts: {wrong}}}"))
    assert "previews.prompts" in str(caught.value) and not (tmp_path / "run").exists()


def test_a_text_alone_is_the_input_text_and_nothing_at_all_is_refused() -> None:
    assert Prompt.of("a house").inputs == {"text": "a house"}  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="nothing to draw"):
        PreviewsSection.of({"count": 0})
