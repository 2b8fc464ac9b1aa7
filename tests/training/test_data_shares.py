"""Captions mixed by shares: as often as said, the same after a resume, and refused where a text is missing."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from data_sources import opened, picture, section
from ldmkit_training.data.batches import Batches, validation_batches
from ldmkit_training.data.section import open_data

from ldmkit import Dataset, InputError, SpecError

MIXED = {"text": {"shares": {"long": 0.9, "original": 0.1}}}


def source(tmp_path: Path, lacking: bool = False) -> Dataset:
    lines = ["path,long,original"]
    for number in range(4):
        picture(tmp_path / f"{number}.png", (16, 16), (number, 0, 0))
        lines.append(f"{number}.png,{'' if lacking and number == 2 else f'long {number}'},short {number}")
    (tmp_path / "known.csv").write_text("\n".join(lines))
    return opened("table", tmp_path, file="known.csv", picture="path", missing="allow")


def texts(data: Dataset, steps: int, start: int = 0, captions: Any = MIXED) -> list[str]:
    made = section(captions=captions, batch=2)
    batches = islice(Batches(data, made, seed=3, names=frozenset({"text"})).steps(start), steps)
    return [row["text"] for _, [batch] in batches for row in batch.inputs]


def test_each_text_is_used_as_often_as_its_share_says(tmp_path: Path) -> None:
    data = source(tmp_path)
    found = texts(data, 1000)
    counts = Counter(text.split()[0] for text in found)
    assert abs(counts["short"] - 200) < 55 and counts.total() == 2000  # 4 standard deviations
    assert {text.split()[1] for text in found if text.startswith("short")} == set("0123"), "of every sample"
    assert found[34:60] == texts(data, 13, start=17), "resumed"
    assert found == texts(data, 1000)


def test_other_rules_work_on_the_text_that_was_drawn(tmp_path: Path) -> None:
    found = texts(source(tmp_path), 50, captions={"text": {**MIXED["text"], "prefix": "sks, "}})
    assert {text.split()[1] for text in found} == {"long", "short"} and all(t.startswith("sks, ") for t in found)


def test_a_text_may_be_mixed_under_its_own_name(tmp_path: Path) -> None:
    rule = {"original": {"shares": {"long": 0.5, "original": 0.5}}}
    made = section(captions=rule, batch=2)
    steps = islice(Batches(source(tmp_path), made, seed=3, names=frozenset({"original"})).steps(0), 40)
    assert {row["original"].split()[0] for _, [batch] in steps for row in batch.inputs} == {"long", "short"}


def test_validation_takes_the_largest_share(tmp_path: Path) -> None:
    made = section(captions=MIXED, batch=2)
    batches = validation_batches(source(tmp_path), made, None, names=frozenset({"text"}))
    assert [row["text"] for batch in batches for row in batch.inputs] == [f"long {n}" for n in range(4)]


@pytest.mark.parametrize("shares", [{"long": 0.9}, {"long": 0.9, "original": 0.2}, {"long": 0.0, "original": 0.0}])
def test_shares_that_do_not_sum_to_one_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(SpecError) as error:
        section(captions={"text": {"shares": shares}})
    assert error.value.code == "spec.caption-shares"
    assert all(f"{name} {share:g}" in str(error.value) for name, share in shares.items())


def test_a_text_that_the_data_lack_is_refused_by_name(tmp_path: Path) -> None:
    source(tmp_path)
    train = {"type": "table", "config": {"file": "known.csv", "picture": "path"}}
    made = section(train=train, captions={"text": {"shares": {"longer": 0.95, "original": 0.05}}})
    with pytest.raises(SpecError) as error:
        open_data(made, tmp_path)
    assert error.value.code == "spec.unknown-input" and "longer" in str(error.value) and "long" in str(error.value.fits)


def test_a_record_that_lacks_a_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        texts(source(tmp_path, lacking=True), 20)
    assert error.value.code == "input.no-caption" and "2.png" in str(error.value) and "'long'" in str(error.value)
