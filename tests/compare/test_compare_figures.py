"""The figures of a comparison against values known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from ldmkit_compare.figures import marginal, psnr, rms, spread
from ldmkit_drawing.loglog import Line, Plot, Series, Spot, log_ticks, picture, shapes, svg


def test_equal_things_are_at_distance_zero() -> None:
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert rms(x, x) == 0 and psnr(x, x) is None and marginal(x, x) == 0 and spread(x, x) == 1


def test_known_distances() -> None:
    x = torch.zeros(1, 3, 8, 8)
    assert rms(x + 0.5, x) == pytest.approx(0.5)
    assert psnr(x + 0.1, x) == pytest.approx(20, abs=1e-4)  # mean square 0.01; float32 has 0.1 to 1e-8
    assert marginal(x + 1, x) == 1


def test_marginals_do_not_ask_where_a_value_stands() -> None:
    x = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    shuffled = x.flip(0, 2, 3)
    assert rms(shuffled, x) > 1 and marginal(shuffled, x) == 0 and spread(shuffled, x) == pytest.approx(1)
    # a shift by one standard deviation: the largest difference of two normal distributions is 2 Phi(1/2) - 1 = 0.383;
    # 256 values a channel give it within a few hundredths
    assert marginal(x + 1, x) == pytest.approx(math.erf(0.5 / math.sqrt(2)), abs=0.08)
    assert spread(x * 2, x) == pytest.approx(2)


def test_ticks_are_round_and_few() -> None:
    assert log_ticks(4.5, 56) == [5, 7, 10, 20, 30, 50]
    assert log_ticks(0.9, 110) == [1, 2, 5, 10, 20, 50, 100]
    assert log_ticks(1e-4, 10) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1, 10])


def test_equal_ratios_are_equal_lengths() -> None:
    plot = Plot([Series("a", ((1, 1), (10, 0.1), (100, 0.01)))], "x", "y")
    (line,) = [s for s in shapes(plot, 400, 300) if isinstance(s, Line) and s.ink == 0]
    (x0, y0), (x1, y1), (x2, y2) = line.points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y1 - y0 == pytest.approx(y2 - y1, abs=0.2)
    assert x0 < x1 and y0 < y1, "errors fall to the lower right"


def test_both_drawings_show_every_series() -> None:
    plot = Plot(
        [Series("a<b", ((5, 0.1), (10, 0.05))), Series("noise", ((5, 0.3), (10, 0.0)), hollow=True)],
        "calls", "error", mark=0.01, mark_label="doubt",
    )  # fmt: skip
    text = svg(plot)
    assert text.count("<polygon") == 3, "the point without an error has no place on a logarithmic axis"
    assert 'class="spot hollow s1"' in text and "doubt" in text and "a<b" not in text
    assert sum(isinstance(s, Spot) for s in shapes(plot, 480, 360)) == 3
    image = picture(plot, 480, 300)
    assert image.size[0] == 480 and image.size[1] > 300 and len(image.getcolors(100_000) or ()) > 5


def test_nothing_to_show_is_still_a_plot() -> None:
    assert "<svg" in svg(Plot([Series("failed", ())], "x", "y")) and picture(Plot([], "x", "y"), 300, 200).width == 300
