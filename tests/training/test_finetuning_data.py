"""All at once on a LoRA: buckets, repeats, changed captions, masks, prompts of one's own, and the best model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sources import lines, png
from ldmkit_training.before.opening import open_recipe
from ldmkit_training.before.recipe import Recipe, parse_recipe
from ldmkit_training.data.batches import Batches
from ldmkit_training.loop.devices import open_accelerator
from started import started
from tiny import assert_same, base, tensors, train

import ldmkit

SIDES = [(20, 20), (32, 16), (17, 35), (45, 25), (16, 16), (40, 33)]


def recipe(tmp_path: Path, out: str, **changes: Any) -> Recipe:
    """Folders as kohya's scripts take them, with captions and masks, of mixed proportions."""
    for folder, count in (("2_red house", 6), ("1_house", 4)):
        (tmp_path / "d" / folder).mkdir(parents=True, exist_ok=True)
        rows = []
        for number, (height, width) in enumerate(SIDES[:count]):
            image = np.random.default_rng(number + 10 * count).integers(0, 256, (height, width, 3), dtype=np.uint8)
            mask = np.zeros((height, width), np.uint8)
            mask[:, : width // 2] = 255
            (tmp_path / "d" / folder / f"{number}.png").write_bytes(png(image))
            (tmp_path / "m" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "m" / folder / f"{number}.png").write_bytes(png(mask))
            (tmp_path / "d" / folder / f"{number}.txt").write_bytes(b"a tree, two boats, a lake\r\n")
            rows.append({"file_name": f"{number}.png", "area": f"../../m/{folder}/{number}.png"})
        lines(tmp_path / "d" / folder / "metadata.jsonl", *rows)
    made = base(tmp_path / out)
    made |= {"stage": "lora", "model": {"start": str(tmp_path / "start")}, "lora": {"rank": 2}, "probe": None}
    made["data"] = {
        "train": {"type": "folder", "config": {"folder": "d", "folders": "kohya", "captions": ".txt"}},
        "size": [16, 16], "batch": 2, "buckets": {"step": 4}, "fit": "random-crop", "mirror": 0.5, "held_out": 0.2,
        "captions": {"text": {"prefix": "a house, ", "shuffle": True, "keep": 1, "tag_dropout": 0.2}},
    }  # fmt: skip
    made["objective"] = {"mask": {"input": "area", "outside": 0.1}, "noise_offset": 0.05, "dropout": {"none": 0.2},
                         "weighting": {"type": "min-snr"}}  # fmt: skip
    made |= {"schedule": {"type": "constant"}, "optimiser": {"type": "adafactor", "lr": 1e-2}, "steps": 4}
    made["checkpoints"] = {"every": 2, "best": {"figure": "loss"}}
    made["validation"] = {"every": 1}
    made["previews"] = {"every": 4, "steps": 2, "prompts": ["a house", {"inputs": {"text": "a tree"}, "seed": 5}]}
    return parse_recipe(made | changes)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    pytest.importorskip("transformers")
    return started(tmp_path / "start")


def test_all_of_it_resumes_and_is_what_it_says(tmp_path: Path, start: Path) -> None:
    stage, train_data, held = open_recipe(recipe(tmp_path, "run"), tmp_path, open_accelerator())
    assert held is not None and len(held) == 2 and len(train_data) == 8
    section = recipe(tmp_path, "run").data
    texts = set()
    for step in range(12):
        [batch] = Batches(train_data, section, seed=3, names=stage.inputs).at(step)
        assert batch.images is not None and batch.images.shape[-2:] == batch.size
        assert all(row["area"].shape == batch.size for row in batch.inputs)
        texts |= {row["text"] for row in batch.inputs}
    assert all(text.startswith("a house, a tree") for text in texts) and len(texts) > 2
    train(recipe(tmp_path, "whole"), tmp_path)
    train(recipe(tmp_path, "stopped", steps=2), tmp_path)
    train(recipe(tmp_path, "stopped"), tmp_path)
    for name in ("model", "best"):
        assert_same(tensors(tmp_path / "whole" / name), tensors(tmp_path / "stopped" / name))
    figures = [json.loads(line) for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["validation/loss"] for line in figures if "validation/loss" in line}
    note = json.loads((tmp_path / "whole/best.json").read_text())
    assert note["step"] == min(losses, key=lambda step: losses[step])
    assert (tmp_path / "whole/previews/step-00000004.png").is_file()
    ldmkit.load(start).with_lora(tmp_path / "whole/best")
