"""Checkpoints whose digests are right and whose contents are not, and what only has a checkpoint's name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from ldmkit_training.loop import checkpoints
from ldmkit_training.loop.checkpoints import Checkpoint
from ldmkit_training.loop.engine import Engine

from ldmkit.errors import InputError, RunError, SourceError, SpecError
from ldmkit.models.weights import open_safetensors, write_safetensors


def some(step: int) -> Checkpoint:
    return Checkpoint(step, {"weights": {"a": torch.ones(2)}}, {"recipe": {"x": step}})


def signed(folder: Path) -> None:
    """Make the digests those of the files as they are now."""
    files = sorted(path for path in folder.iterdir() if path.name != checkpoints.MANIFEST)
    digests = {path.name: checkpoints._digest(path) for path in files}
    (folder / checkpoints.MANIFEST).write_text(json.dumps({"files": digests}))


def with_state(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        state = json.loads((folder / "state.json").read_text())
        changed = change(state)
        (folder / "state.json").write_text(json.dumps(changed if isinstance(changed, list) else state))

    return damage


def with_tensors(name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / f"{name}.safetensors"
        tensors = {key: lazy.read(True) for key, lazy in open_safetensors(path).items()}
        change(tensors)
        write_safetensors(path, tensors)
        with_state(lambda state: state["tensors"].update({name: len(tensors)}))(folder)

    return damage


def first(tensors: dict[str, torch.Tensor], ending: str = "weight") -> str:
    return next(key for key in tensors if key.endswith(ending))


def reshaped(ending: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({(key := first(tensors, ending)): tensors[key][:0]})


STRANGE: dict[str, Callable[[Path], Any]] = {
    "state is a list": with_state(lambda _: [1]),
    "state is no JSON": lambda folder: (folder / "state.json").write_bytes(b"\xff{"),
    "state is deep": lambda folder: (folder / "state.json").write_text("[" * 100_000),
    "no format": with_state(lambda state: state.pop("format")),
    "another step": with_state(lambda state: state.update(step=4)),
    "step is text": with_state(lambda state: state.update(step="6")),
    "step is true": with_state(lambda state: state.update(step=True)),
    "no recipe": with_state(lambda state: state.pop("recipe")),
    "recipe is text": with_state(lambda state: state.update(recipe="x")),
    "frozen is null": with_state(lambda state: state.update(frozen=None)),
    "a part is a number": with_state(lambda state: state.update(parts={"codec": 3})),
    "a part's config is text": with_state(lambda state: state["parts"]["codec"].update(config="x")),
    "updates are text": with_state(lambda state: state.update(ema_updates="many")),
    "tensors is a number": with_state(lambda state: state.update(tensors=3)),
    "no optimiser": lambda folder: (folder / "optimiser.safetensors").unlink(),
    "no average": lambda folder: (folder / "ema.safetensors").unlink(),
    "no weights": lambda folder: (folder / "weights.safetensors").unlink(),
    "empty optimiser": with_tensors("optimiser", dict.clear),
    "fewer than written": lambda folder: write_safetensors(folder / "optimiser.safetensors", {}),
    "a moment is missing": with_tensors("optimiser", lambda t: t.pop(first(t, "/exp_avg_sq"))),
    "a moment of nothing": with_tensors("optimiser", lambda t: t.update({"denoiser/nothing/exp_avg": torch.ones(1)})),
    "a turn of nobody": with_tensors("optimiser", lambda t: t.update({"nobody/x/step": torch.ones(1)})),
    "weights of another shape": with_tensors("weights", reshaped("weight")),
    "average of another shape": with_tensors("ema", reshaped("weight")),
    "moment of another shape": with_tensors("optimiser", reshaped("weight/exp_avg")),
    "a weight is missing": with_tensors("weights", lambda t: t.pop(first(t))),
    "a weight too many": with_tensors("weights", lambda t: t.update({"denoiser/more": torch.ones(1)})),
    "weights are whole numbers": with_tensors("weights", lambda t: t.update({(key := first(t)): t[key].long()})),
    "weights are no safetensors": lambda folder: (folder / "weights.safetensors").write_bytes(b"\x01" * 99),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    tiny.train(tiny.denoiser_recipe(out))
    return out


@pytest.mark.parametrize("how", STRANGE)
def test_the_run_goes_on_from_the_one_before(
    trained: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit what it was, whatever the newest one holds; the reason is said."""

    out = tmp_path / "run"
    shutil.copytree(trained, out)
    monkeypatch.chdir(tmp_path)
    folder = out / "checkpoints/step-00000006"
    STRANGE[how](folder)
    signed(folder)
    with pytest.warns(UserWarning, match=r"step-00000006 is left out: .*step-00000006/\w+\.\w+"):
        assert tiny.train(tiny.denoiser_recipe(out)).step == 6
    tiny.assert_same(tiny.tensors(trained / "checkpoints"), tiny.tensors(out / "checkpoints"))
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-00000004", "step-00000006"]


def test_no_other_file_is_read(tmp_path: Path) -> None:
    """A list of files that leads out of the folder, or to what is none of the run's."""
    for step in (1, 2):
        checkpoints.write(tmp_path, some(step), keep=2)
    folder = tmp_path / "step-00000002"
    os.mkfifo(folder / "more.safetensors")
    assert checkpoints.resumable(tmp_path).step == 2, "files that are not on the list are not opened"
    (folder / checkpoints.MANIFEST).write_text(json.dumps({"files": {"../step-00000001/state.json": "0"}}))
    with pytest.warns(UserWarning, match="is no file of this folder"):
        assert checkpoints.resumable(tmp_path).step == 1


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "weights.safetensors"])
def test_a_fifo_inside_does_not_block(tmp_path: Path, name: str) -> None:
    for step in (1, 2):
        checkpoints.write(tmp_path, some(step), keep=2)
    (tmp_path / "step-00000002" / name).unlink()
    os.mkfifo(tmp_path / "step-00000002" / name)
    with pytest.warns(UserWarning, match=f"step-00000002 is left out.*{name}"):
        assert checkpoints.resumable(tmp_path).step == 1


def test_a_newer_format_is_neither_passed_over_nor_removed(tmp_path: Path) -> None:
    checkpoints.write(tmp_path, some(1), keep=2)
    checkpoints.write(tmp_path, Checkpoint(2, {}, {"format": 2}), keep=2)
    with pytest.raises(SourceError, match="newer ldmkit") as caught:
        checkpoints.resumable(tmp_path)
    assert caught.value.code == "source.checkpoint-version"


def fifo(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS = [fifo, loop, device, lambda path: path.write_text("notes")]


@pytest.mark.parametrize("make", KINDS, ids=["fifo", "loop", "device", "file"])
def test_what_only_has_the_name_is_left_and_blocks_nothing(tmp_path: Path, make: Callable[[Path], object]) -> None:
    checkpoints.write(tmp_path, some(1), keep=1)
    make(tmp_path / "step-00000002")
    make(tmp_path / "step-00000009")
    make(tmp_path / ".retired-step-00000001")
    with pytest.warns(UserWarning, match="step-0000000[29] is named like a checkpoint and is none"):
        assert checkpoints.resumable(tmp_path).step == 1
    with pytest.warns(UserWarning, match="step-00000002 is no checkpoint; it was moved to aside-step-00000002"):
        checkpoints.write(tmp_path, some(2), keep=1)
    checkpoints.write(tmp_path, some(3), keep=1)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"step-00000003", "step-00000009", "aside-step-00000002"}
    checkpoints.verify(tmp_path / "step-00000003")


def test_a_linked_checkpoint_is_read_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    """Such as one on another disk."""
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    checkpoints.write(elsewhere, some(1), keep=1)
    here.mkdir()
    (here / "step-00000001").symlink_to(elsewhere / "step-00000001")
    assert checkpoints.resumable(here).step == 1
    checkpoints.write(here, some(2), keep=1)
    assert [path.name for path in here.iterdir()] == ["step-00000002"]
    checkpoints.verify(elsewhere / "step-00000001")


@pytest.mark.parametrize("name", ["step-000000007", "step-0000000x", "step-00000007.bak", "step-" + "9" * 200])
def test_other_spellings_are_not_taken(tmp_path: Path, name: str) -> None:
    checkpoints.write(tmp_path, some(1), keep=1)
    (tmp_path / name).mkdir()
    checkpoints.write(tmp_path, some(2), keep=1)
    if name.startswith("step-9"):  # a step that nobody reached: it is damaged, and goes
        assert not (tmp_path / name).exists()
    else:
        with pytest.warns(UserWarning, match="named like a checkpoint and is none"):
            assert checkpoints.resumable(tmp_path).step == 2
        assert (tmp_path / name).is_dir()


def test_one_that_cannot_be_removed_does_not_fail_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.write(tmp_path, some(1), keep=1)
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path.name == "step-00000001":
            raise PermissionError(1, "Operation not permitted")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.warns(UserWarning, match="step-00000001 cannot be removed: Operation not permitted"):
        assert checkpoints.write(tmp_path, some(2), keep=1).is_dir()
    assert checkpoints.resumable(tmp_path).step == 2


@pytest.mark.parametrize("name", ["checkpoints", "model"])
def test_a_file_in_the_place_of_a_folder_is_told_before_the_first_step(
    trained: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.yaml").write_bytes((trained / "recipe.yaml").read_bytes())
    os.mkfifo(out / name)
    with pytest.raises(InputError, match="it is no folder") as caught:
        Engine(tiny.denoiser_recipe(out), tmp_path)
    assert caught.value.code == "input.folder-taken" and caught.value.where == str(out / name)


def test_two_engines_of_one_process_in_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "run"
    one = Engine(tiny.denoiser_recipe(out, "steps=2"), tmp_path)
    link = tmp_path / "link"
    link.symlink_to(out)
    for same in (out, link, tmp_path / "x/../run"):
        for fresh in (False, True):
            with pytest.raises(RunError) as caught:
                Engine(tiny.denoiser_recipe(same, "steps=2"), tmp_path, fresh=fresh)
            assert caught.value.code == "run.folder-in-use"
    assert one.run().step == 2
    two = Engine(tiny.denoiser_recipe(out, "steps=3"), tmp_path)
    with pytest.raises(RunError):
        Engine(tiny.denoiser_recipe(out, "steps=3"), tmp_path)
    del two  # one that never ran lets go of it too
    assert tiny.train(tiny.denoiser_recipe(out, "steps=3")).step == 3


def test_a_refused_run_lets_go_of_its_folder(trained: Path, tmp_path: Path) -> None:
    """Although its traceback, and so the engine, is still there."""
    out = tmp_path / "run"
    tiny.train(tiny.denoiser_recipe(out, "steps=1"))
    with pytest.raises(SpecError) as caught:
        Engine(tiny.denoiser_recipe(out, "steps=1", "seed=4"), tmp_path)
    assert caught.value.code == "spec.other-recipe"
    assert tiny.train(tiny.denoiser_recipe(out, "steps=2")).step == 2


def test_a_lock_that_is_a_fifo_does_not_block(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    os.mkfifo(out / ".lock")
    with pytest.raises(RunError) as caught:
        Engine(tiny.denoiser_recipe(out, "steps=1"), tmp_path)
    assert caught.value.code == "run.cannot-write" and str(caught.value.where) == str(out / ".lock")
