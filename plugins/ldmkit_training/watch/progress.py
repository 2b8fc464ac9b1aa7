"""The progress bar of a run: loss, images per second, time left; periodic lines if there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

from ldmkit.printable import printable

SMOOTHING = 0.1
"""Weight of the newest step in the running mean of step times."""


PACED = 4
"""Number of updates after which the pace is reported."""


class Progress:
    """The progress display of a run, in the reporting process; a context manager.

    Args:
        steps: steps of the whole run.
        start: steps completed before (a resumed run).
        quiet_every: seconds between lines if `stream` is not a terminal.
        shown: False in processes that do not report.
        clock: returns seconds; replaced in tests.
    """

    def __init__(
        self,
        steps: int,
        *,
        start: int = 0,
        stream: TextIO | None = None,
        quiet_every: float = 30.0,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.steps, self.done, self.shown = steps, start, shown
        self.stream = stream if stream is not None else sys.stderr
        self.quiet_every, self.clock = quiet_every, clock
        self._seconds: float | None = None
        self._pictures = 0
        self._last = self._written = clock()
        self._took: list[float] = []
        self._bar: tqdm | None = None
        if shown and self.stream.isatty():
            self._bar = tqdm(total=steps, initial=start, file=self.stream, unit="step", dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def speed(self) -> float:
        """Pictures a second, over the last steps; 0 before the first."""
        return self._pictures / self._seconds if self._seconds else 0.0

    @property
    def left(self) -> float:
        """Seconds to the end at this speed; 0 before the first step."""
        return (self.steps - self.done) * (self._seconds or 0.0)

    def update(self, step: int, loss: float, pictures: int) -> None:
        """After optimiser step `step` (counted from 1) on `pictures` pictures, all processes together."""
        now = self.clock()
        took = (now - self._last) / max(1, step - self.done)
        self._seconds = took if self._seconds is None else (1 - SMOOTHING) * self._seconds + SMOOTHING * took
        self._last, self._pictures = now, pictures
        self._took.append(took) if len(self._took) < PACED else None
        advanced, self.done = step - self.done, step
        if self._bar is not None:
            with self._while_there():
                self._bar.set_postfix_str(f"loss {loss:.4g}, {self.speed:.3g} images/s", refresh=False)
                self._bar.update(advanced)
        elif self.shown and (now - self._written >= self.quiet_every or step == self.steps):
            self._written = now
            self.say(self.line(loss))
        if len(self._took) == PACED and self.steps - step > PACED:
            self.say(self.pace())
            self._took.append(took)  # once

    def skip(self) -> None:
        """Exclude the time since the last step (a preview, a checkpoint) from step times."""
        self._last = self.clock()

    def pace(self) -> str:
        """The time of a step and of all remaining ones, from the first steps except the very first, which warms up."""
        a_step = sum(self._took[1:PACED]) / (PACED - 1)
        left = self.steps - self.done
        return f"a step takes {a_step:.3g} s: the {left:,} left will take {duration(left * a_step)}"

    def line(self, loss: float) -> str:
        """The state in words."""
        return f"step {self.done}/{self.steps}  loss {loss:.4g}  {self.speed:.3g} images/s  {duration(self.left)} left"

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one; nothing is shown any more once the terminal is gone."""
        text = printable(text)
        with self._while_there():
            if self._bar is not None:
                self._bar.write(text, file=self.stream)
            elif self.shown:
                print(text, file=self.stream, flush=True)

    def close(self) -> None:
        """Close the bar in its current state."""
        with self._while_there():
            if self._bar is not None:
                self._bar.close()
        self._bar = None

    @contextmanager
    def _while_there(self) -> Iterator[None]:
        # a closed terminal must not prevent the last checkpoint
        try:
            yield
        except OSError:
            self._bar, self.shown = None, False


def duration(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
