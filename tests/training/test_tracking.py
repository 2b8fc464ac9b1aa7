"""Progress, log and trackers."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from ldmkit_training.watch.lines import Lines
from ldmkit_training.watch.progress import Progress, duration
from ldmkit_training.watch.tracking import Tracker, TrackingSection
from PIL import Image

from ldmkit.errors import InputError, SpecError


class Clock:
    """Time that tests move."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_speed_and_time_left_are_those_of_the_steps() -> None:
    clock = Clock()
    progress = Progress(100, start=10, stream=io.StringIO(), clock=clock)
    for step in range(11, 21):
        clock.now += 0.5
        progress.update(step, 0.25, 16)
    assert progress.speed == pytest.approx(32.0)
    assert progress.left == pytest.approx(40.0)


def test_the_pace_of_the_first_steps_says_once_how_long_the_run_will_take() -> None:
    """The very first step warms up: 9 s; the next three take 0.5, 0.25 and 0.75 s."""
    clock, stream = Clock(), io.StringIO()
    progress = Progress(3604, stream=stream, quiet_every=1e9, clock=clock)
    for step, seconds in enumerate((9, 0.5, 0.25, 0.75, 4, 4), 1):
        clock.now += seconds
        progress.update(step, 0.5, 8)
    assert stream.getvalue() == "a step takes 0.5 s: the 3,600 left will take 30:00\n"


def test_previews_do_not_count_as_steps() -> None:
    clock = Clock()
    progress = Progress(10, stream=io.StringIO(), clock=clock)
    clock.now += 1
    progress.update(1, 1.0, 4)
    clock.now += 60
    progress.skip()
    clock.now += 1
    progress.update(2, 1.0, 4)
    assert progress.speed == pytest.approx(4.0)


def test_without_a_terminal_there_is_a_line_now_and_then_and_one_at_the_end() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(20, stream=stream, quiet_every=5, clock=clock)
    for step in range(1, 21):
        clock.now += 1
        progress.update(step, 0.5, 8)
    steps = [line.split()[1] for line in stream.getvalue().splitlines() if line.startswith("step")]
    assert steps == ["5/20", "10/20", "15/20", "20/20"]
    assert "loss 0.5  8 images/s  0:00 left" in stream.getvalue()


def test_a_terminal_gets_a_bar() -> None:
    stream = Terminal()
    with Progress(4, stream=stream) as progress:
        for step in range(1, 5):
            progress.update(step, 0.125, 8)
        progress.say("a line of its own")
    assert "loss 0.125" in stream.getvalue() and "4/4" in stream.getvalue() and "a line of its own" in stream.getvalue()


def test_a_silent_process_says_nothing() -> None:
    stream = io.StringIO()
    progress = Progress(2, stream=stream, quiet_every=0, shown=False)
    progress.update(1, 1.0, 1)
    progress.say("no")
    assert stream.getvalue() == ""


def test_durations() -> None:
    assert [duration(s) for s in (0, 59.6, 3599, 3723)] == ["0:00", "1:00", "59:59", "1:02:03"]


def test_the_log_goes_on_where_the_checkpoint_was(tmp_path: Path) -> None:
    section = TrackingSection(to=())
    first = Tracker(section, tmp_path)
    for step in (20, 40, 60):
        first.log({"loss": 1 / step}, step)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 80, "lo')  # as a kill leaves it
    second = Tracker(section, tmp_path, start=40)
    second.log({"loss": float("nan"), "lr": 0.5}, 60)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [20, 40, 60]
    assert records[-1]["loss"] is None and records[-1]["lr"] == 0.5


def test_lines_of_other_things_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('[1]\n{"a": 1}\n{"step": 3}\n')
    assert Lines(path).read() == [{"step": 3}]


def test_tensorboard_gets_figures_and_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = Tracker(TrackingSection(), tmp_path, config={"seed": 0})
    tracker.log({"loss": 0.5}, 20)
    tracker.picture("preview", Image.new("RGB", (8, 8)), 20)
    tracker.close()
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(20, 0.5)]
    assert found.Images("preview")[0].width == 8


def test_a_tracker_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"input.unknown-tracker.*did you mean 'tensorboard'") as caught:
        Tracker(TrackingSection(to=("tensorbord",)), tmp_path)
    assert caught.value.where == "tracking.to"


def test_a_tracker_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"input.tracker-missing.*pip install comet_ml"):
        Tracker(TrackingSection(to=("comet_ml",)), tmp_path)


def test_without_tensorboard_the_default_warns_and_the_log_stays(tmp_path: Path) -> None:
    code = f"""
import sys, warnings
sys.modules["tensorboard"] = sys.modules["tensorboardX"] = None
from importlib import util
found = util.find_spec
util.find_spec = lambda name, *rest: None if name.startswith("tensorboard") else found(name, *rest)
from pathlib import Path
from ldmkit_training.watch.tracking import Tracker, TrackingSection
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    Tracker(TrackingSection(), Path({str(tmp_path)!r})).log({{"loss": 1.0}}, 1)
assert any("not installed" in str(w.message) for w in caught), caught
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    assert '"loss": 1.0' in (tmp_path / "log.jsonl").read_text()


def test_zero_is_no_interval() -> None:
    with pytest.raises(SpecError, match="every"):
        TrackingSection(every=0)
