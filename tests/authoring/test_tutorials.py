"""The tutorials are walked through, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from walkthrough import Walk

import ldmkit
from ldmkit import plugins
from ldmkit.testing import check_conditioner

PAGES = Path(__file__).parents[2] / "docs" / "tutorials"
PALETTE = PAGES / "palette.md"

pytestmark = pytest.mark.slow


@pytest.fixture
def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Walk]:
    (tmp_path / "site").mkdir()
    made = Walk(tmp_path, tmp_path / "site", monkeypatch, capsys)
    yield made
    made.entered()  # forgets the tutorial's modules
    monkeypatch.undo()
    plugins.refresh()


def test_palette(walk: Walk) -> None:
    walk.short = ("data.train.config.source.config.count=8",)
    walk.fewer = {"48": "2", "4": "1"}
    walk.page(PALETTE)
    for file in ("palette.png", "dusk.png", "runs/palette/model/pipeline.json"):
        assert (walk.folder / file).is_file(), file
    assert sum(line.startswith("pytest") for line in walk.ran) == 2
    assert any(line == "ldmkit train recipe.yaml" for line in walk.ran)
    broken_null_is_found(walk)


def broken_null_is_found(walk: Walk) -> None:
    """What the page says of the kit, when the null is zeros."""
    module = walk.folder / "src" / "ldmkit_palette" / "palette.py"
    code = module.read_text(encoding="utf-8")
    broken = code.replace("Vector(self.empty.expand_as(like.value))", "Vector(torch.zeros_like(like.value))")
    assert broken != code and "return Vector(torch.zeros_like(like.value))" in PALETTE.read_text(encoding="utf-8")
    module.write_text(broken, encoding="utf-8")
    walk.entered()
    (failed,) = check_conditioner(ldmkit.get("conditioner", "palette")).failures
    assert failed.check.name == "gradients" and "empty" in failed.came
