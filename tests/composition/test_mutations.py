"""Damaged files of every format: what loads is what was written, where it carries sums, and all else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutation_subjects import prepared
from mutations import Draw, Subject, attempt, damage

EACH = 20

Prepared = dict[str, tuple[Subject, Path, str]]

NAMES = (
    *("saved-weights", "saved-spec", "spec", "safetensors", "checkpoint", "checkpoint-opened", "legacy"),
    *("tokenizer-slow", "tokenizer-fast", "tokenizer-original", "tokenizer-bert", "png", "pictures", "shards"),
    *("metadata", "coco", "training-recipe", "original-yaml", "training-checkpoint"),
    *("diffusers-folder", "diffusers-weights", "part-folder"),
)  # fmt: skip


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return {made[0].name: made for made in prepared(tmp_path_factory.mktemp("mutations"))}


def test_every_format_is_here(subjects: Prepared) -> None:
    assert set(NAMES) == set(subjects)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files(name: str, subjects: Prepared, tmp_path: Path) -> None:
    subject, good, text = subjects[name]
    draw, refused = Draw(name), 0
    for number in range(EACH):
        outcome = attempt(subject, damage(subject, good, tmp_path, draw), text)
        assert outcome.kind not in ("raw", "slow"), f"{name} {number}: {outcome.text}"
        assert outcome.kind != "other" or not subject.exact, f"{name} {number}: something else was loaded"
        refused += outcome.kind == "refused"
    assert refused or name in ("legacy", "checkpoint-opened"), "nothing was damaged"
