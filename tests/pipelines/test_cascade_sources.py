"""Where cascades come from: stage folders of any format, and formats of several pipelines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cascade_parts
import diffusers
import pytest
import torch

import ldmkit
from ldmkit.cli import main
from ldmkit.plugins.hooks import manager


def pixels(folder: Path, channels: int = 3) -> None:
    """A diffusers pipeline of pictures without conditions."""
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(
        sample_size=8, in_channels=channels, out_channels=channels, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, norm_num_groups=4,
    )  # fmt: skip
    diffusers.DDPMPipeline(net, diffusers.DDPMScheduler()).save_pretrained(folder)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A saved pipeline, and a diffusers folder that continues from its picture; the wiring is written by hand."""
    (tmp_path / "mixed").mkdir()
    cascade_parts.cascade().stages["base"].save(tmp_path / "mixed" / "base")
    pixels(tmp_path / "mixed" / "up")
    wiring = {"stages": {"base": {}, "up": {"start": {"stage": "base", "strength": 0.5, "enlarge": 2}}}}
    (tmp_path / "mixed" / "cascade.json").write_text(json.dumps(wiring))
    return tmp_path / "mixed"


def test_a_stage_is_anything_that_is_read(mixed: Path, tmp_path: Path) -> None:
    cascade = ldmkit.Cascade.load(mixed)
    made = cascade({"label": 3}, seeds=[1], steps=3)
    assert made.images.shape == (1, 3, 16, 16) and made.stages["base"].images.shape == (1, 3, 8, 8)
    alone = ldmkit.load(mixed / "up")
    assert cascade.stages["up"].spec.hash == alone.spec.hash
    assert cascade.stages["up"].origin == str(mixed / "up")
    again = ldmkit.Cascade.load(cascade.save(tmp_path / "saved"))({"label": 3}, seeds=[1], steps=3)
    assert torch.equal(again.images, made.images)


def test_an_exact_replay(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.png"
    assert main(["sample", str(mixed), "--label", "3", "--steps", "3", "-o", str(out), "--json"]) == 0
    capsys.readouterr()
    assert main(["replay", str(out), "--trust", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] == 0


def test_a_missing_stage_is_named_with_what_names_it(mixed: Path) -> None:
    shutil.rmtree(mixed / "up")
    with pytest.raises(ldmkit.SourceError, match=r"stage 'up'.*no folder 'up', a stage of cascade\.json") as caught:
        ldmkit.Cascade.load(mixed)
    assert caught.value.code == "source.not-found"


def test_stages_that_do_not_fit_are_named_before_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels(tmp_path / "base", channels=1)
    cascade_parts.cascade().stages["up"].save(tmp_path / "up")
    (tmp_path / "cascade.json").write_text(json.dumps({"stages": {"base": {}, "up": {"inputs": {"label": "base"}}}}))

    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("ldmkit.models.reading.assign", read)
    with pytest.raises(ldmkit.CompositionError, match="'up' does not accept the result of 'base'") as caught:
        ldmkit.Cascade.load(tmp_path)
    assert caught.value.code == "compose.wrong-handover"


def test_a_stage_of_stages_is_refused(mixed: Path, tmp_path: Path) -> None:
    outer = {"stages": {"mixed": {}}}
    (tmp_path / "cascade.json").write_text(json.dumps(outer))
    with pytest.raises(ldmkit.SourceError, match="a stage is one pipeline") as caught:
        ldmkit.Cascade.load(tmp_path)
    assert caught.value.code == "source.cascade"


class Published(ldmkit.CascadeSource):
    """Two pipelines of a made-up format, wired by its reader."""

    @property
    def cascade(self) -> ldmkit.CascadeSpec:
        return ldmkit.CascadeSpec.read({"stages": {"base": {}, "up": {"inputs": {"low": "base"}}}})

    def stage(self, name: str) -> ldmkit.Source:
        return ldmkit.open_source(Path(self.origin) / f"the-{name}")


class Reader:
    @ldmkit.hookimpl(tryfirst=True)
    def ldmkit_identify_checkpoint(self, path: Path) -> ldmkit.Source | None:
        return Published(str(path)) if (path / "two.txt").is_file() else None


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "published"
    for name, stage in cascade_parts.cascade().stages.items():
        folder.mkdir(exist_ok=True)
        stage.save(folder / f"the-{name}")
    (folder / "two.txt").write_text("")
    reader = Reader()
    manager().register(reader)
    yield folder
    manager().unregister(reader)


def test_a_format_of_several_pipelines(published: Path) -> None:
    cascade = ldmkit.Cascade.load(published)
    want = cascade_parts.cascade()({"label": 3}, seeds=[1], steps=3)
    assert torch.equal(cascade({"label": 3}, seeds=[1], steps=3).images, want.images)
    with pytest.raises(ldmkit.SourceError, match=r"ldmkit\.Cascade\.load") as caught:
        ldmkit.load(published)
    assert caught.value.code == "source.cascade"
    with pytest.raises(ldmkit.SourceError, match=r"ldmkit\.load"):
        ldmkit.Cascade.load(published / "the-base")


def test_the_command_line_draws_some_stages(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, given = tmp_path / "a.png", ["--label", "3", "--steps", "3", "--json"]
    assert main(["sample", str(published), *given, "-o", str(out), "--stages", "1"]) == 0
    assert list(ldmkit.read_recipe(out)["stages"]) == ["base"]
    assert main(["sample", str(published), *given, "-o", str(out), "--stages", "2", "--overwrite"]) == 0
    assert list(ldmkit.read_recipe(out)["stages"]) == ["base", "up"]
    capsys.readouterr()
    for words, said in (
        (["--stages", "3"], "there are 2 stages"),
        (["--stages", "1", "--last", "up"], "--stages or --last"),
    ):
        assert main(["sample", str(published), *given, "-o", str(out), *words]) != 0
        assert said in "".join(capsys.readouterr())
