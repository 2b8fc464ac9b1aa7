"""The tutorials are walked through, block by block."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ldmkit_authoring.distribution import distribution
from walkthrough import Walk

import ldmkit
from ldmkit.plugins import catalogue
from ldmkit.testing import check_conditioner, check_sampler

PAGES = Path(__file__).parents[2] / "docs" / "tutorials"
PALETTE, SAMPLER = PAGES / "palette.md", PAGES / "sampler.md"

pytestmark = pytest.mark.slow


@pytest.fixture
def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Walk]:
    (tmp_path / "site").mkdir()
    made = Walk(tmp_path, tmp_path / "site", monkeypatch, capsys)
    yield made
    made.entered()  # forgets the tutorial's modules
    monkeypatch.undo()
    catalogue.refresh()


def test_palette(walk: Walk) -> None:
    walk.short = ("data.train.config.source.config.count=8",)
    walk.fewer = {"48": "2", "4": "1"}
    walk.page(PALETTE)
    for file in ("palette.png", "dusk.png", "runs/palette/model/pipeline.json"):
        assert (walk.folder / file).is_file(), file
    assert sum(line.startswith("pytest") for line in walk.ran) == 2
    assert any(line == "ldmkit train recipe.yaml" for line in walk.ran)
    broken_null_is_found(walk)
    without_the_distribution(walk)


@pytest.mark.parametrize("page", ["sketch.md", "swatches.md"])
def test_signals(walk: Walk, page: str) -> None:
    """Only the probe, validation and previews that the recipe has are made smaller, beside what is always shortened."""
    few = "data.train.config.source.config.count=8"
    walk.short = (few, "validation=null", "probe=null", "previews=null", "schedule.warmup=1")
    walk.fewer = {"48": "3"}
    walk.page(PAGES / page)
    name = page.removesuffix(".md")
    assert (walk.folder / "runs" / name / "model" / "pipeline.json").is_file()
    assert sum(line.startswith("pytest") for line in walk.ran) == 1
    assert any(line == "ldmkit train recipe.yaml" for line in walk.ran)
    said = walk.capsys.readouterr().out
    assert "drawn, " in said and "the world's own, " in said


def test_sampler(walk: Walk) -> None:
    names, texts = distribution("sampler", "three-stage")
    module = f"src/{names.package}/{names.module}.py"
    walk.fewer = {"8": "2", "8,24": "2", "200": "10", "2": "1"}
    walk.page(SAMPLER)
    assert "order 2.95" in walk.capsys.readouterr().out
    for file in ("lake.png", "compare.html", "compare.png"):
        assert (walk.folder / file).is_file(), file
    assert claims_third_order(walk, module, texts[module]) in SAMPLER.read_text(encoding="utf-8")


def claims_third_order(walk: Walk, module: str, scaffold: str) -> str:
    """What the kit says of the scaffold's sampler with `order = 3`."""
    assert "order: ClassVar[int | None] = 2" in scaffold
    walk.write(module, scaffold.replace("= 2\n", "= 3\n"), add=False)
    walk.entered()
    (failed,) = check_sampler(ldmkit.get("sampler", "three-stage")).failures
    return str(failed)


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


def without_the_distribution(walk: Walk) -> None:
    """The first thing that the page says of errors, and the last."""
    walk.entered()
    with pytest.raises(ldmkit.InputError, match=r"palette\[1\]: String should match pattern"):
        ldmkit.get("conditioner", "palette")().parse(["#ffffff", "red"], "palette")
    (metadata,) = walk.site.glob("ldmkit_palette-*.dist-info")
    shutil.rmtree(metadata)
    walk.entered()
    with pytest.raises(ldmkit.PluginError, match="ldmkit-palette"):
        ldmkit.load(walk.folder / "runs" / "palette" / "model")
