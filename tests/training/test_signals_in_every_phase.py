"""Whatever a run is at when a signal comes: the steps that are done are saved, or it is said that there are none, in
one line and never as a traceback; the same command goes on to the same bits."""

from __future__ import annotations

import fcntl
import os
import pkgutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from ldmkit_training.data.cache.writing import alone
from ldmkit_training.loop.steps import Steps
from ldmkit_training.loop.together import Stopped
from ldmkit_training.stages.codec.stage import CodecStage

from ldmkit.cli import main
from ldmkit.cli.answers import INTERRUPTED

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP]
ENGINE = "ldmkit_training.loop.engine."

PHASES: list[tuple[str, int, int]] = [  # where the signal comes, in which call, steps that are saved
    ("ldmkit_training.before.opening.build_stage", 1, 0),
    ("ldmkit_training.before.opening.open_data", 1, 0),
    ("ldmkit_training.before.opening.checked_data", 1, 0),
    (f"{ENGINE}rehearse", 1, 0),
    (f"{ENGINE}identity", 1, 0),
    (f"{ENGINE}open_folder", 1, 0),
    (f"{ENGINE}watchers", 1, 0),
    (f"{ENGINE}Tracker", 1, 0),
    ("ldmkit_training.loop.steps.Steps.run", 1, 1),
    ("ldmkit_training.loop.steps.Steps.run", 3, 3),
    ("ldmkit_training.loop.ema.Ema.update", 1, 1),
    ("ldmkit_training.watch.tracking.Tracker.log", 1, 1),
    ("ldmkit_training.loop.checkpoints.write", 1, 2),
    ("ldmkit_training.stages.codec.stage.CodecStage.validate", 2, 3),  # the first one is the rehearsal's
    ("ldmkit_training.watch.previews.Previews.sheet", 2, 3),
    ("ldmkit_drawing.sheets.Sheet.save", 1, 3),
    ("ldmkit_training.loop.engine.measure", 1, 6),
    ("ldmkit_training.stages.codec.stage.CodecStage.save", 2, 6),
]


def signalled(monkeypatch: pytest.MonkeyPatch, name: str, number: signal.Signals, call: int, *, times: int = 1) -> None:
    """The signal comes as a function is called for the `call`th time."""
    calls = 0
    plain: Callable[..., Any] = pkgutil.resolve_name(_colon(name))

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return plain(*arguments, **options)

    monkeypatch.setattr(name, wrapped)


def _colon(name: str) -> str:
    """`a.b.C.d` as `a.b:C.d`: what follows the last module."""
    words = name.split(".")
    first = next((i for i, word in enumerate(words) if word[:1].isupper()), len(words) - 1)
    return ".".join(words[:first]) + ":" + ".".join(words[first:])


def recipe(tmp_path: Path) -> str:
    data = tiny.codec_data(tmp_path / "run", "previews={every: 3, count: 2}", "validation.every=3")
    return str(tiny.write(data, tmp_path / "recipe.yaml"))


def saved(tmp_path: Path) -> int:
    folder = tmp_path / "run/checkpoints"
    return max([int(path.name.removeprefix("step-")) for path in folder.glob("step-*")], default=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("whole")
    assert main(["train", recipe(folder)]) == 0
    return tiny.tensors(folder / "run/model")


@pytest.mark.parametrize(("name", "call", "steps"), PHASES, ids=[f"{p[0].rpartition('.')[2]}-{p[1]}" for p in PHASES])
@pytest.mark.parametrize("number", SIGNALS[:2])
def test_the_steps_are_saved_or_it_is_said_that_there_are_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    whole: Any,
    name: str,
    call: int,
    steps: int,
    number: signal.Signals,
) -> None:
    path, before = recipe(tmp_path), [signal.getsignal(each) for each in SIGNALS]
    with monkeypatch.context() as patched:
        signalled(patched, name, number, call)
        code = main(["train", path])
    out, err = capsys.readouterr()
    assert f"stopped by {number.name}" in out + err and "Traceback" not in out + err
    assert (code, saved(tmp_path)) == ((INTERRUPTED if "before the first step" in err else 6), steps)
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert not (tmp_path / "run/model").exists()
    assert main(["train", path]) == 0
    tiny.assert_same(tiny.tensors(tmp_path / "run/model"), whole)


@pytest.mark.parametrize("number", SIGNALS[2:])
@pytest.mark.parametrize(("name", "call", "steps"), [PHASES[3], PHASES[8], PHASES[12], PHASES[-1]])
def test_so_do_those_of_batch_systems(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    name: str,
    call: int,
    steps: int,
) -> None:
    signalled(monkeypatch, name, number, call)
    assert main(["train", recipe(tmp_path)]) in (6, INTERRUPTED)
    out, err = capsys.readouterr()
    assert f"stopped by {number.name}" in out + err and saved(tmp_path) == steps


@pytest.mark.parametrize(("owner", "name"), [(Steps, "run"), (CodecStage, "validate")])
def test_a_second_ctrl_c_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], owner: Any, name: str
) -> None:
    """In the middle of a step or of validation: what was saved before stays, and nothing more is done."""
    call = 5 if owner is Steps else 2
    signalled(monkeypatch, f"{owner.__module__}.{owner.__name__}.{name}", signal.SIGINT, call, times=2)
    assert main(["train", recipe(tmp_path)]) == INTERRUPTED
    out, err = capsys.readouterr()
    assert "interrupted" in err and "Traceback" not in out + err
    assert saved(tmp_path) == {"run": 4, "validate": 2}[name]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_waiting_for_another_process_that_encodes_can_be_ended(tmp_path: Path) -> None:
    """The lock is another descriptor's: the system lets two of one process exclude each other too."""
    said: list[str] = []

    def look() -> None:
        raise Stopped

    with (tmp_path / "kept.lock").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Stopped), alone(tmp_path / "kept", said.append, look):
            pytest.fail("two at once")
    assert said == [f"waiting for another process that encodes into {tmp_path / 'kept'}"]
    with alone(tmp_path / "kept", said.append, look):
        assert len(said) == 1
