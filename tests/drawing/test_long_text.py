"""Text of any length is drawn by work that grows with it and no faster: a caption may be a `data:` address."""

from __future__ import annotations

import random
from typing import Any

import pytest
from ldmkit_drawing import sheets
from ldmkit_drawing.drawings import card
from ldmkit_drawing.sheets import font, words, wrap


class Counting:
    """A font that counts the characters that it measures."""

    def __init__(self, size: int) -> None:
        self.inner, self.measured = font(size), 0

    def getlength(self, text: str) -> float:
        self.measured += len(text)
        return float(self.inner.getlength(text))


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    found = Counting(11)
    monkeypatch.setattr(sheets, "font", lambda size: found)
    return found


def measured(counting: Counting, text: str, **more: Any) -> int:
    before = counting.measured
    wrap(text, 128, 11, **more)
    return counting.measured - before


@pytest.mark.parametrize("unit", ["x", "four ", "\u200d", "a" * 399 + " ", "i\u0301", "line\n"])
def test_work_grows_with_the_length_and_no_faster(counting: Counting, unit: str) -> None:
    short, long = (unit * (length // len(unit)) for length in (2_000, 20_000))
    # ten times the text: ten times the work, and two lines' worth where the last one is cut
    assert measured(counting, long) <= 10 * measured(counting, short) + 128 * 16
    assert measured(counting, long) <= 128 * len(long)  # a line's worth for each character at the very most


def test_lines_that_nobody_draws_are_not_made(counting: Counting) -> None:
    few = measured(counting, "x" * 2_000, most=4)
    assert measured(counting, "x" * 1_000_000, most=4) == few
    assert len(wrap("x" * 5_000, 128, 11, most=4)) == 4 and len(wrap("a b " * 5_000, 128, 11, most=4)) == 4


def slow(text: str, width: int, size: int) -> list[str]:
    """Each line as long as it may be, by trying all."""
    measure = font(size).getlength
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            if measure(joined := f"{line} {word}" if line else word) <= width:
                line = joined
                continue
            lines += [line] if line else []
            line = word
            while measure(line) > width and len(line) > 1:
                cut = next(i for i in range(len(line) - 1, 0, -1) if i == 1 or measure(line[:i]) <= width)
                lines.append(line[:cut])
                line = line[cut:]
        lines.append(line)
    return lines


def test_the_lines_are_the_longest_that_fit() -> None:
    rng = random.Random(5)
    for _ in range(150):
        text = "".join(rng.choice("abcAVWT il  \n.,\u00e9\u4e2d") for _ in range(rng.randint(0, 90)))
        width, size = rng.choice([5, 30, 64, 128]), rng.choice([8, 11, 16])
        lines = wrap(text, width, size)
        assert lines == slow(text, width, size)
        assert wrap(text, width, size, most=2) == lines[:2]


def test_a_card_and_words_of_a_very_long_text() -> None:
    text = "data:image/png;base64," + "A" * 100_000
    assert card(text)((64, 64)).size == (64, 64)
    assert words(text, 64, 11, lines=3).height == 3 * 15  # a line is 1.3 times its letters high, rounded up
