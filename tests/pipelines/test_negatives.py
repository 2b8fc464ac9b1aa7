"""A negative for each picture of a batch: equal to the picture drawn with it alone, and replayed so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import ldmkit
from ldmkit.cli import main
from ldmkit.errors import InputError
from ldmkit.replaying import replay

CLOSE = 2e-5  # a row of a batch and a batch of one: other summation orders in float32 matrix products


def test_each_row_is_drawn_with_its_own(class_pipe: ldmkit.Pipeline) -> None:
    negatives: list[dict[str, Any]] = [{"label": 1}, {}, {"label": 2}]
    options: dict[str, Any] = {"steps": 3, "guidance": 3.0}
    batch = class_pipe({"label": 3}, negative=negatives, seeds=[4, 5, 6], **options)
    alone = [
        class_pipe({"label": 3}, negative=one, seeds=seed, **options)
        for one, seed in zip(negatives, (4, 5, 6), strict=True)
    ]
    for i, one in enumerate(alone):
        assert (batch.images[i] - one.images[0]).abs().max() < CLOSE
        assert batch.recipes[i] == one.recipes[0] and one.recipes[0]["negative"] == negatives[i]
        again = replay(class_pipe, batch.recipes[i])
        assert torch.equal(again.images, one.images)
    swapped = class_pipe({"label": 3}, negative=negatives[::-1], seeds=[4, 5, 6], **options)
    assert (swapped.images[0] - batch.images[0]).abs().max() > 100 * CLOSE  # they matter
    assert torch.equal(swapped.images[1], batch.images[1])  # the null in the middle is the null


def test_one_input_and_one_seed_serve_all_negatives(class_pipe: ldmkit.Pipeline) -> None:
    options: dict[str, Any] = {"steps": 2, "guidance": 3.0}
    several = class_pipe({"label": 3}, negative=[{"label": 0}, {"label": 1}], seeds=7, **options)
    listed = class_pipe([{"label": 3}] * 2, negative=[{"label": 0}, {"label": 1}], seeds=[7, 7], **options)
    assert several.images.shape[0] == 2 and torch.equal(several.images, listed.images)
    one = class_pipe({"label": 3}, negative=[{"label": 0}], seeds=[1, 2], **options)
    assert torch.equal(one.images, class_pipe({"label": 3}, negative={"label": 0}, seeds=[1, 2], **options).images)


def test_the_conditioning_of_a_batch(class_pipe: ldmkit.Pipeline) -> None:
    inputs = [{"label": 3}, {"label": 3}]
    part = class_pipe.conditioning(inputs, negative=[{"label": 0}, {}], size=(8, 8)).parts[0]
    first = class_pipe.conditioning(inputs, negative={"label": 0}, size=(8, 8)).parts[0]
    none = class_pipe.conditioning(inputs, size=(8, 8)).parts[0]
    assert part.null is not None and first.null is not None and none.null is not None
    assert torch.equal(part.null.value[0], first.null.value[0])  # type: ignore[union-attr]
    assert torch.equal(part.null.value[1], none.null.value[1])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("negative", "code", "where"),
    [
        ([{"label": 1}] * 2, "input.batch-mismatch", "negative"),
        ([], "input.empty-batch", "negative"),
        ([{"label": 1}, 3, {}], "input.not-a-mapping", "negative[1]"),
        ([{}, {"lable": 1}, {}], "input.unknown-input", "negative[1]"),
        ({"lable": 1}, "input.unknown-input", "negative"),
        ("label", "input.not-a-mapping", "negative"),
    ],
)
def test_refusals_name_the_row(class_pipe: ldmkit.Pipeline, negative: Any, code: str, where: str) -> None:
    with pytest.raises(InputError) as caught:
        class_pipe({"label": 3}, negative=negative, seeds=[1, 2, 3], steps=2)
    assert (caught.value.code, caught.value.where) == (code, where)


def test_the_command_line_takes_one_a_picture(
    class_folder: Path, class_pipe: ldmkit.Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["sample", str(class_folder), "--label", "1", "--steps", "3", "--guidance", "3", "--seed", "7"]
    negatives = ["--negative", "label=2", "--negative", "label=4"]
    assert main([*call, *negatives, "--out", str(tmp_path / "a.png")]) == 0
    want = class_pipe({"label": 1}, negative=[{"label": 2}, {"label": 4}], steps=3, guidance=3.0, seeds=[7, 8]).pil()
    for i, picture in enumerate(want):
        assert Image.open(tmp_path / f"a-{i}.png").tobytes() == picture.tobytes()
    assert main([*call, *negatives, "-n", "3", "--out", str(tmp_path / "b.png")]) == 2
    assert "2 negatives for 3 pictures" in capsys.readouterr().err
