"""Said before a run: pictures that it never comes to, files stretched onto them, black masks, texts that are none."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from data_sources import picture, section
from ldmkit_training.before.plan import make_plan
from ldmkit_training.before.recipe import parse_recipe
from ldmkit_training.data.batches import Batches
from ldmkit_training.data.buckets import in_buckets
from ldmkit_training.data.section import open_data
from ldmkit_training.data.shapes import said_of_unused
from PIL import Image
from started import started

WHITE = np.full((16, 16), 255, dtype=np.uint8)


def said_of_masks(root: Path, masks: Sequence[np.ndarray], *overrides: str) -> list[str]:
    """What the plan of a masked loss warns of; pictures of 16 x 16."""
    lines = []
    for number, mask in enumerate(masks):
        picture(root / "d" / f"{number}.png", (16, 16))
        (root / "d/m").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / f"d/m/{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "label": "lake", "area": f"m/{number}.png"}))
    (root / "d/metadata.jsonl").write_text("\n".join(lines))
    made = tiny.denoiser_data(root / "run", "data.validation=null", "validation=null", "data.fit=resize", *overrides)
    made["data"]["train"] = {"type": "folder", "config": {"folder": "d"}}
    made["objective"]["mask"] = {"input": "area"}
    with pytest.warns(UserWarning) as caught:
        make_plan(parse_recipe(made), root)
    return [str(one.message) for one in caught if "area" in str(one.message)]


def test_masks_of_other_proportions_are_said(tmp_path: Path) -> None:
    tall, larger = np.full((32, 16), 255, np.uint8), np.full((48, 48), 255, np.uint8)
    (said,) = said_of_masks(tmp_path, [WHITE, tall, larger, tall])
    what = "data: 'area' of 2 of 4 samples looked at has other proportions than the picture, and is stretched onto it"
    assert said == f"{what}, up to 2 times"


def test_black_masks_are_said(tmp_path: Path) -> None:
    (said,) = said_of_masks(tmp_path, [WHITE, np.zeros_like(WHITE), WHITE, WHITE])
    assert said.startswith("objective.mask: 'area' of 1 of 4 samples looked at is black everywhere")


def bucketed(root: Path, batch: int, **changes: Any) -> tuple[Batches, Any]:
    """Seven square pictures, a wide and a tall one."""
    for number in range(7):
        picture(root / f"{number}.png", (32, 32))
    picture(root / "7.png", (40, 24))
    picture(root / "8.png", (24, 40))
    made = section(size=[32, 32], buckets={"step": 8}, batch=batch, **changes)
    made = made.model_copy(update={"train": {"type": "folder", "config": {"folder": str(root)}}})
    data = in_buckets(open_data(type(made).model_validate(made.model_dump()), root)[0], made)
    return Batches(data, made, seed=0), data


@pytest.mark.parametrize("batch", [1, 3, 4, 8])
@pytest.mark.parametrize("steps", [1, 3, 4, 6, 9, 12, 40, 80])
def test_pictures_that_no_step_uses_are_named(tmp_path: Path, batch: int, steps: int) -> None:
    """Against the batches themselves."""
    batches, data = bucketed(tmp_path, batch)
    used = {name for _, parts in islice(batches.steps(0), steps) for part in parts for name in part.ids}
    missing = sorted({f"{number}.png" for number in range(9)} - used)
    said = said_of_unused(batches, data, steps)
    if steps * batch < 9:
        assert said is None, "of less than an epoch nobody expects all"
    elif not missing:
        assert said is None
    else:
        ids = ", ".join(map(repr, missing[:3])) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        assert said is not None
        assert said.startswith(f"data.buckets: {len(missing)} of 9 pictures are in none of the {steps} batches: {ids};")


def said_of_texts(root: Path, texts: Sequence[str | None], **config: Any) -> list[str]:
    """What the plan of a model of texts warns of."""
    rows = [{"file_name": f"{number}.png", "text": text} for number, text in enumerate(texts)]
    for row in rows:
        picture(root / "d" / row["file_name"], (16, 16))
    (root / "d/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = {"stage": "lora", **tiny.base(root / "run"), "model": {"start": str(started(root / "start"))}, "probe": None}
    made["data"] = {"train": {"type": "folder", "config": {"folder": "d", **config}}, "size": [16, 16], "batch": 2}
    made |= {"validation": None, "lora": {"rank": 1}}
    made["data"]["captions"] = {"text": {"prefix": "sks, "}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_plan(parse_recipe(made), root)
    return [str(one.message) for one in caught if str(one.message).startswith("data:")]


def test_texts_that_programs_write_for_none_are_said(tmp_path: Path) -> None:
    (said,) = said_of_texts(tmp_path, ["a house", "NaN", "None", "nan", "a nan bread", "none of them"])
    assert said.startswith("data: the text of 3 sample(s) is 'NaN' or 'None' or 'nan', which programs write")
    assert "'1.png', '2.png', '3.png'" in said


def test_printed_lists_are_said(tmp_path: Path) -> None:
    texts = [str(["a house", "a tree"]), json.dumps({"blip": "a house"}), "[a house]", "a house", "['a house"]
    (said,) = said_of_texts(tmp_path, texts)
    assert said.startswith(
        "data: the text of 2 sample(s) is a list or a mapping as a program prints it: '0.png', '1.png'"
    )
    assert said_of_texts(tmp_path / "plain", ["a house", "a tree"]) == []
