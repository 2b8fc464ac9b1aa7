"""`ldmkit data caption`: captions beside data, gone on with, never replaced unasked, and used in training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from data_sources import opened, picture, section
from fake_distributions import Distribution
from ldmkit_captions.caption_file import CaptionFile
from ldmkit_miniworld.captioner import MiniworldCaptioner
from ldmkit_miniworld.captions import words
from ldmkit_miniworld.world import World
from ldmkit_training.data.batches import Batches
from torch import Tensor
from typer.testing import CliRunner

import ldmkit
from ldmkit import Captioner, Captions, InputError
from ldmkit.cli.app import app
from ldmkit.testing import check_captioner

ENTRY_POINTS = "[ldmkit.captioners]\nlight = test_caption_command:Light\nfails = test_caption_command:Fails\n"


class Light(Captioner):
    """How light a picture is."""

    api = 1
    places: int = 2

    def caption(self, picture: Tensor, facts: Mapping[str, Any]) -> Captions:
        text = f"light {float(picture.mean()):.{self.places}f}"
        return Captions(text, f"{text}, {len(facts)} facts")


class Fails(Light):
    """As `Light`, but not at the third picture."""

    def caption(self, picture: Tensor, facts: Mapping[str, Any]) -> Captions:
        if float(picture[0, 0, 0]) > -0.99:
            raise InputError("bad-file", "too light", where="picture")
        return super().caption(picture, facts)


@pytest.fixture
def pictures(tmp_path: Path, distribution: Distribution) -> Path:
    distribution("captioners", ENTRY_POINTS)
    for number in range(4):
        picture(tmp_path / f"d/{number}.png", (16, 16), (number, 0, 0))
    return tmp_path / "d"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["data", "caption", *map(str, arguments)])


def refused(code: str, *arguments: object) -> str:
    problem = run(*arguments).exception
    assert isinstance(problem, ldmkit.LdmkitError) and problem.code == code, problem
    return str(problem)


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_captions_of_a_folder_are_a_table_to_train_on(pictures: Path) -> None:
    result = run(pictures, "--captioner", "light")
    assert result.exit_code == 0, result.output
    written = pictures.parent / "d.captions.jsonl"
    found = lines(written)
    assert [line["file_name"] for line in found] == [f"d/{n}.png" for n in range(4)]
    assert all(line["long"].startswith(line["short"]) for line in found)
    record = json.loads((pictures.parent / "d.captions.record.json").read_text())
    assert record["captioner"]["type"] == "light" and record["captions"] == 4
    data = opened("table", pictures.parent, file="d.captions.jsonl")
    mixed = section(captions={"text": {"shares": {"long": 0.5, "short": 0.5}}}, batch=2)
    rows = [row for _, [batch] in islice(Batches(data, mixed, seed=0).steps(0), 10) for row in batch.inputs]
    assert {"facts" in row["text"] for row in rows} == {True, False}


def test_an_interrupted_run_is_gone_on_with(pictures: Path) -> None:
    written = pictures.parent / "d.captions.jsonl"
    assert run(pictures, "--captioner", "light", "-n", 2).exit_code == 0
    before = written.read_bytes()
    written.write_bytes(before + b'{"file_name": "d/2.p')  # cut off as it was written
    again = run(pictures, "--captioner", "light", "--json")
    assert json.loads(again.output)["new"] == 2
    assert written.read_bytes().startswith(before) and len(lines(written)) == 4


def test_a_picture_that_fails_is_named_and_the_others_are_kept(pictures: Path) -> None:
    said = refused("input.bad-file", pictures, "--captioner", "fails")
    assert "2.png" in said and "too light" in said
    assert len(lines(pictures.parent / "d.captions.jsonl")) == 2


def test_captions_of_another_captioner_are_not_mixed_in_nor_replaced(pictures: Path) -> None:
    written = pictures.parent / "d.captions.jsonl"
    run(pictures, "--captioner", "light")
    before = written.read_bytes()
    refused("input.other-captioner", pictures, "--captioner", "light:places=3")
    assert written.read_bytes() == before
    assert run(pictures, "--captioner", "light:places=3", "--overwrite").exit_code == 0
    assert written.read_bytes() != before
    (pictures.parent / "d.captions.record.json").unlink()
    refused("input.no-record", pictures, "--captioner", "light:places=3")


@pytest.mark.parametrize(("out", "code"), [("a.txt", "not-jsonl"), (None, "no-out")])
def test_where_to_write_must_be_clear(out: str | None, code: str, tmp_path: Path) -> None:
    more = () if out is None else ("--out", tmp_path / out)
    refused(f"input.{code}", "miniworld:count=2", "--captioner", "miniworld", *more)


def test_a_damaged_file_is_not_gone_on_with(tmp_path: Path) -> None:
    file = CaptionFile(tmp_path / "a.jsonl", {"type": "x"})
    file.add("1.png", Captions("a", "b"))
    (tmp_path / "a.jsonl").write_text('{"file_name": "1.png"}\nwords\n')
    with pytest.raises(InputError) as error:
        CaptionFile(tmp_path / "a.jsonl", {"type": "x"})
    assert error.value.code == "input.bad-file" and "line 2" in str(error.value)


def test_the_worlds_captioner_keeps_the_contract() -> None:
    check_captioner(MiniworldCaptioner).require()


def test_the_worlds_captioner_says_what_is_there() -> None:
    world, known = World(64), set(words())
    for index in range(60):
        one = world.sample("captions", index)
        facts = {"layout": one.layout, "label": one.label}
        found = MiniworldCaptioner().caption(ldmkit.from_levels(one.image), facts)
        said = found.long.replace(",", "").split()
        assert set(said) <= known and set(found.short.replace(",", "").split()) <= known
        for entry in one.layout:
            assert all(word in found.long for word in entry["label"].split() if word in ("red", "blue", "green"))
        assert len(found.long) >= len(found.short)
