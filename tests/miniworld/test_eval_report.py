"""The whole evaluation, on a model that has learned nothing and on the world's own pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ldmkit_miniworld.evaluation import How, Judge, evaluate
from ldmkit_miniworld.oracle import as_tensor, bundled
from ldmkit_miniworld.report import EvalReport
from ldmkit_miniworld.world import World
from world_models import world_model

from ldmkit import cli
from ldmkit.errors import InputError

COUNT = 48
QUICK = How(steps=1, batch=4)


@pytest.fixture(scope="module")
def judge() -> Judge:
    world, oracle = World(64), bundled()
    pictures = tuple(world.sample("test", i) for i in range(COUNT))
    others = as_tensor([world.sample("reference", i).image for i in range(2 * COUNT)])
    return Judge(pictures, oracle.read(others).features, oracle)


def test_the_worlds_own_pictures_are_what_was_asked_for(judge: Judge) -> None:
    figures = judge.figures(as_tensor([p.image for p in judge.asked]), ("text", "label", "layout", "semantic"))
    assert figures.text is not None and figures.layout is not None and figures.semantic is not None
    assert min(figures.text.objects, figures.text.colours or 0, figures.text.relations or 0) > 0.95
    assert figures.label == figures.text.label == figures.text.time == 1.0
    assert figures.layout.recall50 > 0.95 and figures.layout.false < 0.1 and figures.text.false < 0.1
    assert figures.semantic > 0.85


def test_other_pictures_are_not(judge: Judge) -> None:
    figures = judge.shifted().figures(
        as_tensor([p.image for p in judge.asked]), ("text", "label", "layout", "semantic")
    )
    assert figures.text is not None and figures.layout is not None and figures.semantic is not None
    assert figures.text.objects < 0.6 and (figures.text.colours or 0) < 0.4
    assert (figures.label or 0) < 0.5 and figures.layout.recall50 < 0.1 and figures.semantic < 0.4


def test_noise_is_far_from_the_world(judge: Judge) -> None:
    names = ("text", "layout")
    own = judge.figures(as_tensor([p.image for p in judge.asked]), names)
    noise = judge.figures(torch.rand(COUNT, 3, 64, 64, generator=torch.Generator().manual_seed(0)), names)
    assert noise.frechet is not None and own.frechet is not None and noise.frechet > 5 * own.frechet
    assert noise.layout is not None and noise.layout.recall50 < 0.1


def test_one_picture_again_and_again_has_no_diversity(judge: Judge) -> None:
    same = as_tensor([judge.asked[0].image] * COUNT)
    assert judge.figures(same, ()).diversity == pytest.approx(0, abs=1e-2)


def test_a_report_has_a_row_for_every_set() -> None:
    seen: dict[str, torch.Tensor] = {}
    done: dict[str, int] = {}
    report = evaluate(
        world_model("label", "layout", codec="identity"),
        count=6,
        conditions="label,all",
        how=QUICK,
        references=8,
        progress=lambda name, count, of: done.update({name: count * 100 + of}),
        keep=seen.__setitem__,
    )
    assert [row.conditions for row in report.rows] == [("label",), ("label", "layout")]
    assert report.row("layout", "label").figures.layout is not None
    assert report.row("label").figures.layout is None and report.row("label").figures.text is None
    assert report.codec == report.renders, "this codec keeps every pixel"
    assert report.renders.label == 1.0 and report.size == 64 and report.steps == 1
    assert {name: images.shape for name, images in seen.items()} == dict.fromkeys(
        ("renders", "codec", "label", "label + layout"), torch.Size((6, 3, 64, 64))
    )
    assert done["label"] == done["label + layout"] == done["codec"] == 606 and done["renders to compare with"] == 808
    assert EvalReport.of(json.loads(json.dumps(report.model_dump(mode="json")))) == report
    with pytest.raises(KeyError):
        report.row("text")


def test_larger_pictures_are_averaged_down() -> None:
    report = evaluate(world_model("label", "semantic", size=128), count=3, conditions="all", how=QUICK, references=4)
    assert report.size == 128 and report.renders.label == 1.0
    assert report.renders.semantic is not None and report.renders.semantic > 0.7, "read at 64x64, against maps of 64x64"


def test_seeds_and_pictures_do_not_depend_on_the_batch() -> None:
    pipe, world = world_model("label"), World(64)
    seen: list[torch.Tensor] = []
    for size in (1, 3):
        how = How(steps=1, batch=size, seed=5)
        evaluate(pipe, world, 3, how=how, references=2, conditions="label", keep=lambda _, images: seen.append(images))
    # kernels of another batch size may round differently
    assert torch.allclose(seen[2], seen[5], atol=1e-4)


def test_wrong_numbers_are_refused() -> None:
    for count, references, batch in ((1, 8, 4), (8, 1, 4), (8, 8, 0)):
        with pytest.raises(InputError, match="eval-count"):
            evaluate(world_model("label"), count=count, references=references, how=How(batch=batch))
    with pytest.raises(InputError, match="eval-size"):
        evaluate(world_model("label"), World(32), 2, references=2)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world_model().save(tmp_path / "model")
    command = [
        "eval",
        "miniworld",
        str(tmp_path / "model"),
        "--count",
        "2",
        "--steps",
        "1",
        "--guidance",
        "2",
        "--references",
        "4",
    ]
    out, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    assert cli.main([*command, "--conditions", "alone,all", "--out", str(out), "--sheet", str(sheet)]) == 0
    table = capsys.readouterr().out
    for word in ("text + label + layout + semantic", "after the codec", "shuffled", "mIoU", "renders it never saw"):
        assert word in table
    assert len(EvalReport.of(json.loads(out.read_text())).rows) == 5
    assert sheet.stat().st_size > 10_000
    assert cli.main([*command, "--conditions", "label", "--json"]) == 0
    told = EvalReport.of(json.loads(capsys.readouterr().out))
    assert told.rows[0].conditions == ("label",) and told.guidance == "2.0"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--conditions", "colour"], 2, "eval-conditions"),
        (["--size", "100"], 2, "eval-size"),
        (["--sheet", "a.jpg"], 2, "not-png"),
        (["--out", "no/such/folder/report.json"], 2, "no-folder"),
        (["--guidance", "lable=3"], 2, "did you mean 'label'"),
    ],
)
def test_wrong_options_are_told(
    arguments: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world_model("label").save(tmp_path / "model")
    command = ["eval", "miniworld", str(tmp_path / "model"), "--count", "2", "--steps", "1", "--references", "2"]
    assert cli.main([*command, *arguments]) == code
    assert said in capsys.readouterr().err
