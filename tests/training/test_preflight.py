"""What a recipe gets wrong is said before anything is written; what would bury or damage a run is kept from it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from ldmkit_training.before.recipe import read_training_recipe
from ldmkit_training.data.sources.maps import MapsData
from ldmkit_training.loop.engine import Engine
from ldmkit_training.loop.runfolder import open_folder
from ldmkit_training.watch.quieter import SHOWN, few_warnings
from PIL import Image

from ldmkit.cli import main
from ldmkit.errors import InputError, LdmkitError, RunError, SourceError, SpecError

CASES: list[tuple[str, Callable[..., dict[str, Any]], str, str, tuple[str, ...]]] = [
    ("rows", tiny.denoiser_data, "accumulate=3", "spec.batch-split", ("data.batch", "a multiple of 3")),
    ("float16", tiny.denoiser_data, "precision=float16", "spec.precision", ("precision", "bfloat16")),
    ("tracker", tiny.denoiser_data, "tracking.to=[tensorbord]", "input.unknown-tracker", ("'tensorboard'?",)),
    ("guidance", tiny.denoiser_data, "previews.guidance={type: cfgg}", "plugin.unknown", ("previews.guidance.type",)),
    ("scale", tiny.denoiser_data, "previews.guidance={txt: 3}", "compose.unknown-condition", ("'txt'", "label")),
    ("default", tiny.denoiser_data, "model.defaults.sampler={type: x}", "plugin.unknown", ("model.defaults.sampler",)),
    ("grid", tiny.denoiser_data, "model.process={type: flow}", "compose.grid-process", ("model.defaults", "karras")),
    ("steps", tiny.denoiser_data, "previews.steps=5000", "input.too-many-steps", ("previews",)),
    ("renamed", tiny.denoiser_data, "data.inputs={label: class}", "spec.unknown-input", ("data.inputs.label", "label")),
    ("side", tiny.codec_data, "data.size=[18, 16]", "input.size-multiple", ("data.size", "multiples of 4", "[16, 16]")),
    ("cache", tiny.codec_data, "data.cache={folder: c}", "spec.no-cache", ("data.cache",)),
]


@pytest.mark.parametrize(
    ("make", "override", "code", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_said_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, override: str, code: str, words: tuple[str, ...]
) -> None:
    path = tiny.write(make(tmp_path / "run"), tmp_path / "recipe.yaml")
    assert main(["train", str(path), "--set", override, "--fresh"]) in (2, 3, 4)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error [{code}] {path}: ") and all(word in line for word in words), line
    assert not (tmp_path / "run").exists()


def test_a_trained_conditioner_without_data_is_told(tmp_path: Path) -> None:
    recipe = tiny.denoiser_recipe(tmp_path / "run", "model.conditioners.label.input=scene", "objective={}")
    with pytest.warns(UserWarning, match="'label' is trained, and the data have no input 'scene'"):
        Engine(recipe, tmp_path)


def test_long_schedules_are_read_from_files(tmp_path: Path) -> None:
    """Those of the published configs are of ten million million steps."""
    data = tiny.denoiser_data(tmp_path / "run", "steps=20000000")
    cycle = {"warmup": [10000], "start": [1e-6], "peak": [1.0], "floor": [1.0]}
    data["schedule"] = {"type": "ldm-linear", "lengths": [10**13], **cycle}
    assert read_training_recipe(tiny.write(data, tmp_path / "recipe.yaml")).steps == 20_000_000
    with pytest.raises(LdmkitError, match="less than or equal to"):
        read_training_recipe(tmp_path / "recipe.yaml", [f"steps={10**20}"])
    with pytest.raises(LdmkitError, match="simple and elbo are both 0") as caught:
        read_training_recipe(tmp_path / "recipe.yaml", ["objective.simple=0"])
    assert str(caught.value.where).endswith("recipe.yaml.objective")


@pytest.mark.parametrize(
    ("override", "where", "hint"),
    [
        ("schedule={type: cos}", "schedule.type", "did you mean 'cosine'?"),
        ("objective.weighting={type: minsnr}", "objective.weighting.type", "did you mean 'min-snr'?"),
        ("objective.times={tpye: uniform}", "objective.times.type", "required"),
    ],
)
def test_kinds_of_a_section(tmp_path: Path, override: str, where: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        tiny.denoiser_recipe(tmp_path, override)
    assert caught.value.where == f"recipe.{where}" and hint in str(caught.value)


def test_a_map_for_two_pictures(tmp_path: Path) -> None:
    for name in ("images/1.png", "images/1.bmp", "labels/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    with pytest.raises(InputError, match="may belong to either") as caught:
        MapsData(pictures="images", maps="labels", classes=1).open(tmp_path)
    assert caught.value.code == "input.file-twice"


def test_where_all_checkpoints_are_damaged_nothing_begins_anew(tmp_path: Path) -> None:
    recipe = tiny.denoiser_recipe(tmp_path / "run", "steps=4")
    tiny.train(recipe)
    for folder in (tmp_path / "run/checkpoints").iterdir():
        (folder / "weights.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(SourceError, match="all 2 checkpoints") as caught:
        tiny.train(recipe)
    assert caught.value.code == "source.no-good-checkpoint" and "--fresh" in str(caught.value)
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 2


class _Alone:
    is_main_process = True

    def wait_for_everyone(self) -> None: ...


def _hold(out: Path, ready: Any, done: Any) -> None:
    lock = open_folder(out, _Alone(), fresh=False)
    ready.set()
    done.wait(600)
    assert lock is not None


@pytest.mark.parametrize("fresh", [False, True])
def test_two_runs_in_one_folder(tmp_path: Path, fresh: bool) -> None:
    out = tmp_path / "run"
    process = multiprocessing.get_context("fork")
    ready, done = process.Event(), process.Event()
    other = process.Process(target=_hold, args=(out, ready, done))
    other.start()
    assert ready.wait(600)
    with pytest.raises(RunError, match="another run") as caught:
        open_folder(out, _Alone(), fresh=fresh)
    assert caught.value.code == "run.folder-in-use" and out.is_dir()
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)  # a lock does not outlive its process
    other.join()
    (out / ".ldmkit-half-written").write_text("")
    open_folder(out, _Alone(), fresh=fresh)
    assert not (out / ".ldmkit-half-written").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_while_the_model_is_saved(tmp_path: Path, number: signal.Signals) -> None:
    """The last checkpoint is there: the run says that it was stopped, and the same command saves the model."""
    engine = Engine(tiny.denoiser_recipe(tmp_path / "run", "steps=2"), tmp_path)
    save = engine.stage.save

    def interrupted(folder: Path) -> None:
        os.kill(os.getpid(), number)
        save(folder)

    engine.stage.save = interrupted  # type: ignore[method-assign]
    assert engine.run() == (2, number.name, None)
    assert not (tmp_path / "run/model").exists()
    assert tiny.train(tiny.denoiser_recipe(tmp_path / "run", "steps=2")).model == tmp_path / "run/model"


def test_warnings_do_not_bury_a_run() -> None:
    said: list[str] = []
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with few_warnings(said.append):
            for i in range(10):
                warnings.warn(f"a caption was cut: {i}", stacklevel=1)
            warnings.warn("another one", stacklevel=1)
    assert len(shown) == SHOWN + 1 and said == [f"{10 - SHOWN} more warnings like these were not shown"]
