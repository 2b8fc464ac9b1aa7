"""What acts in a later phase is run once before step 1, and leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from ldmkit_codecs.kl import KLCodec
from ldmkit_denoisers.unet import UNet
from ldmkit_drawing.sheets import Sheet
from ldmkit_training.before import rehearsal
from ldmkit_training.before.plan import make_plan
from ldmkit_training.before.recipe import Recipe, build_stage
from ldmkit_training.before.space import checkpoint_bytes, short_of_space
from ldmkit_training.loop.engine import Engine
from ldmkit_training.stages.codec.stage import CodecStage
from ldmkit_training.stages.denoiser.stage import DenoiserStage
from ldmkit_training.watch.observe import networks
from PIL import Image

from ldmkit.errors import InputError, LdmkitError
from ldmkit.pipeline import Pipeline


@pytest.mark.parametrize("start", [0, 5, 50001])
def test_a_discriminator_too_deep_for_the_pictures_is_refused_before_step_1(tmp_path: Path, start: int) -> None:
    deep = f"objective.discriminator={{width: 8, layers: 6, start: {start}}}"
    with pytest.raises(LdmkitError, match="discriminator"):
        tiny.train(tiny.codec_recipe(tmp_path / "run", deep))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_rehearsal_changes_nothing(tmp_path: Path, norm: str) -> None:
    recipe = tiny.codec_recipe(tmp_path / "run", f"objective.discriminator.norm={norm}")
    engine, fresh = Engine(recipe, tmp_path), build_stage(recipe, tmp_path)
    for name, turn in engine.stage.turns.items():
        own, wanted = turn.state_dict(), fresh.turns[name].state_dict()
        assert own.keys() == wanted.keys() and all(torch.equal(own[key], wanted[key]) for key in own)
        assert turn.training and all(p.grad is None for p in turn.parameters())


PREVIEWS, PROBE = "previews={count: 4, steps: 3}", "probe={count: 4}"
LATE: list[tuple[Callable[..., Recipe], str, Any, str]] = [
    (tiny.codec_recipe, "validation.every=6", CodecStage, "validate"),
    (tiny.codec_recipe, "objective.statistics=channel", CodecStage, "finish"),
    (tiny.codec_recipe, "seed=1", CodecStage, "save"),
    (tiny.codec_recipe, PREVIEWS, Sheet, "render"),
    (tiny.denoiser_recipe, "validation.every=6", DenoiserStage, "validate"),
    (tiny.denoiser_recipe, "seed=1", DenoiserStage, "save"),
    (tiny.denoiser_recipe, PREVIEWS, Pipeline, "__call__"),
    (tiny.denoiser_recipe, PREVIEWS, Sheet, "render"),
    (tiny.denoiser_recipe, PROBE, rehearsal, "respond"),
]


@pytest.mark.parametrize(
    ("make", "override", "owner", "name"), LATE, ids=[f"{case[0].__name__}-{case[3]}" for case in LATE]
)
def test_what_looks_on_and_what_ends_a_run_fails_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, override: str, owner: Any, name: str
) -> None:
    recipe = make(tmp_path / "run", override)

    def broken(*arguments: Any, **options: Any) -> Any:
        raise LdmkitError("late", f"{name} is broken")

    monkeypatch.setattr(owner, name, broken)
    for begin in (Engine, make_plan):
        with pytest.raises(LdmkitError, match=f"{name} is broken"):
            begin(recipe, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [tiny.codec_recipe, tiny.denoiser_recipe])
def test_a_rehearsed_run_is_the_run(tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, statistics in the codec's config included."""
    overrides = [PREVIEWS] + ([PROBE] if make is tiny.denoiser_recipe else [])
    tiny.train(make(tmp_path / "rehearsed", *overrides))
    monkeypatch.setattr("ldmkit_training.loop.engine.rehearse", lambda *_: None)
    tiny.train(make(tmp_path / "plain", *overrides))
    tiny.assert_same(tiny.tensors(tmp_path / "rehearsed/model"), tiny.tensors(tmp_path / "plain/model"))
    for path in (tmp_path / "plain/model").glob("*.json"):
        assert path.read_bytes() == (tmp_path / "rehearsed/model" / path.name).read_bytes()


def test_a_held_out_file_that_cannot_be_read_is_found_before_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "held"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (16, 16)).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes(b"no picture")
    held = f"data.validation={{type: folder, config: {{folder: {folder}}}}}"
    with pytest.raises(LdmkitError, match=r"3\.png"):
        Engine(tiny.codec_recipe(tmp_path / "run", held), tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "is_folder"),
    [
        ("previews", False),
        ("checkpoints", False),
        ("model", False),
        ("tensorboard", False),
        ("log.jsonl", True),
        ("probe.jsonl", True),
        ("probe.png", True),
        ("model/notes.txt", False),
    ],
)
def test_what_is_in_the_way_of_a_run_is_said_before_it_begins(tmp_path: Path, name: str, is_folder: bool) -> None:
    """Previews after a thousand steps, or the model after the last one, would meet it otherwise."""
    out = tmp_path / "run"
    (out / name).parent.mkdir(parents=True)
    (out / "recipe.yaml").touch()
    (out / name).mkdir() if is_folder else (out / name).touch()
    with pytest.raises(InputError) as caught:
        Engine(tiny.denoiser_recipe(out), tmp_path)
    assert caught.value.code == "input.folder-taken" and str(out / Path(name).parts[0]) in str(caught.value.where)
    Engine(tiny.denoiser_recipe(out), tmp_path, fresh=True)._lock.close()  # type: ignore[union-attr]


def test_a_folder_that_takes_no_files_is_said_before_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may write everywhere: the system's word is put in its mouth."""
    (tmp_path / "run/previews").mkdir(parents=True)
    (tmp_path / "run/recipe.yaml").touch()

    def refused(folder: Path) -> None:
        raise InputError("not-writable", "cannot create a file in the folder", where=str(folder))

    monkeypatch.setattr("ldmkit_training.loop.runfolder.check_writable", refused)
    with pytest.raises(InputError, match="cannot create a file") as caught:
        Engine(tiny.denoiser_recipe(tmp_path / "run"), tmp_path)
    assert caught.value.where == str(tmp_path / "run/previews")


def test_a_disk_that_will_be_full_is_said_in_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny.denoiser_recipe(tmp_path / "run", "checkpoints={every: 2, keep: 3}")
    tiny.train(tiny.denoiser_recipe(tmp_path / "other"))
    newest = max((tmp_path / "other/checkpoints").iterdir())
    stage, written = build_stage(recipe, tmp_path), sum(path.stat().st_size for path in newest.iterdir())
    assert checkpoint_bytes(recipe, stage) == pytest.approx(written, rel=0.5)  # headers weigh in tiny ones
    tmp_path.joinpath("run").mkdir()
    weights = {id(p): 4 * p.numel() for network in networks(stage) for p in network.parameters()}
    exact = 4 * checkpoint_bytes(recipe, stage) + sum(weights.values())  # three, one being written, and the model
    for free, said in ((exact, False), (exact - 1, True)):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        found = short_of_space(recipe, stage, tmp_path / "run")
        assert (found is not None) is said
    assert found is not None and "3 checkpoints of" in found and "are free" in found
    with pytest.warns(UserWarning, match="the run will end with a full disk"):
        Engine(recipe, tmp_path)


@pytest.mark.parametrize(("recipe", "part"), [(tiny.denoiser_recipe, UNet), (tiny.codec_recipe, KLCodec)])
def test_a_part_that_saves_less_than_it_needs_is_refused_before_step_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Callable[..., Recipe], part: type[torch.nn.Module]
) -> None:
    """A buffer that no file holds and that has no number where there are none: the run's model would not load."""
    plain = part.__init__

    def with_buffer(self: torch.nn.Module, config: Any = None) -> None:
        plain(self, config)
        self.register_buffer("ramp", torch.arange(4.0), persistent=False)

    monkeypatch.setattr(part, "__init__", with_buffer)
    with pytest.raises(LdmkitError, match=r"what this run would save does not load: no value for .*ramp") as caught:
        tiny.train(recipe(tmp_path / "run"))
    assert caught.value.code == "weights.uninitialised" and str(tmp_path / "run/model") in str(caught.value.where)
    assert not (tmp_path / "run").exists()
