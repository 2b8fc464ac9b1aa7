"""`ldmkit demo`: the sheet has every panel, is the same for the same seed, and keeps what inpainting must keep."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_parts
import torch
from ldmkit_drawing.sheets import Cell
from ldmkit_miniworld.demo import SAMPLERS, SPLIT, Demo
from ldmkit_miniworld.showing import INKS, condition
from ldmkit_miniworld.vocabulary import LAYOUT_CLASSES, PALETTE
from ldmkit_miniworld.world import World
from PIL import Image
from world_models import world_model

import ldmkit
from ldmkit.cli import main

MODALITIES = ["text", "class", "boxes", "semantic map"]


def rows(demo: Demo) -> list[tuple[str, tuple[Cell, ...]]]:
    return [(row.label, row.cells) for row in demo.sheet()._rows]


def tensors(cells: tuple[Cell, ...]) -> list[torch.Tensor]:
    return [cell.content for cell in cells if isinstance(cell.content, torch.Tensor)]


def test_every_panel_is_there() -> None:
    told: dict[str, list[tuple[int, int]]] = {}
    demo = Demo(world_model(), steps=3, samples=3, progress=lambda name, *at: told.setdefault(name, []).append(at))
    made = [row for row in rows(demo) if row[1]]
    # condition, scene and three samples for each; the combination's five inputs, and its samples; samplers; inpainting
    assert [len(cells) for _, cells in made] == [5, 5, 5, 5, 5, 3, 6, 5]
    assert [label for label, _ in made[:4]] == [f"{name} alone" for name in MODALITIES]
    assert [cell.label for cell in made[4][1]] == [*MODALITIES, "their scene"]
    assert [len(tensors(cells)) for _, cells in made] == [3, 3, 3, 3, 0, 3, 6, 2]
    parts = [*MODALITIES, "all together", *(f"sampler {name}" for name in SAMPLERS), "inpainting"]
    assert list(demo.seconds) == parts == list(told)
    assert told["text"] == [(1, 3), (2, 3), (3, 3)] and told["sampler unipc"] == [(1, 1)]


def test_inpainting_changes_nothing_outside_the_mask() -> None:
    demo = Demo(world_model(), steps=2, samples=3)
    *_, (_, cells) = rows(demo)
    known, drawn = np.asarray(cells[0].content), tensors(cells)
    levels = [(image * 255).round().permute(1, 2, 0).numpy().astype(np.uint8) for image in drawn]
    same = [np.all(one == known, axis=-1) for one in levels]
    # what is drawn anew is one box of the scene: most pixels are the known ones, and in the box hardly any is
    assert all(0.6 < share.mean() < 0.98 for share in same)
    inside = ~(same[0] & same[1])
    ys, xs = np.nonzero(inside)
    assert inside[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].mean() > 0.9
    assert not np.array_equal(levels[0], levels[1])


def test_the_seed_decides() -> None:
    first, again, other = (
        torch.cat([image for _, cells in rows(Demo(world_model("label"), seed, 1, 2)) for image in tensors(cells)])
        for seed in (0, 0, 7)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("names", [("label",), ("layout", "semantic")])
def test_a_model_with_some_conditions_shows_those(names: tuple[str, ...]) -> None:
    demo = Demo(world_model(*names), steps=1, samples=2)
    made = [label for label, cells in rows(demo) if cells]
    known = {"label": "class", "layout": "boxes", "semantic": "semantic map"}
    assert made[: len(names)] == [f"{known[name]} alone" for name in names]
    assert ("all together" in demo.seconds) == (len(names) > 1) and "inpainting" in demo.seconds


def test_conditions_are_drawn_in_the_colours_of_the_world() -> None:
    picture = World(64).sample(SPLIT, 0)
    assert set(INKS) == set(LAYOUT_CLASSES)
    drawn = np.asarray(condition(picture, "semantic")((64, 64)))[:64].reshape(-1, 3)
    assert np.array_equal(drawn, np.array(PALETTE, np.uint8)[picture.semantic].reshape(-1, 3))
    boxes = np.asarray(condition(picture, "layout")((200, 200))).reshape(-1, 3).tolist()
    for box in picture.layout:
        assert list(INKS[box["label"]]) in boxes


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = world_model().save(tmp_path / "model"), tmp_path / "sheet.png"
    options = ["--model", str(folder), "--steps", "1", "-n", "2", "--out", str(out)]
    assert main(["demo", *options]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("text ") and said[-1].startswith(f"{out}: loaded in ") and len(said) == 10
    with Image.open(out) as sheet:
        assert sheet.width > 700 and sheet.height > 1000
    assert main(["demo", *options, "--overwrite", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == str(out) and len(told["parts"]) == 9 and told["total_s"] >= max(told["parts"].values())


def test_what_is_no_model_of_the_world_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_parts.class_pipeline().save(tmp_path / "model")
    assert main(["demo", "--model", str(folder), "--out", str(tmp_path / "a.png")]) == 2
    assert "miniworld" in capsys.readouterr().err
    assert main(["demo", "--model", str(folder), "--out", str(tmp_path / "a.jpg")]) == 2
    with pytest.raises(ldmkit.InputError, match="world"):
        Demo(tiny_parts.class_pipeline())
