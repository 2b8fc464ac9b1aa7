"""A comparison's plot: error over calls of the network, one curve a sampler."""

from __future__ import annotations

from ldmkit_drawing.loglog import Plot, Series

from ldmkit_compare.results import Comparison


def plot_of(found: Comparison) -> Plot:
    """The plot; samplers that draw noise are dashed: theirs are distances."""
    series = []
    for name in found.samplers:
        runs = [run for run in found.runs_of(name) if run.figures is not None]
        points = tuple((float(run.evaluations), run.figures.rms) for run in runs if run.figures is not None)
        series.append(Series(name, points, found.noisy(name)))
    return Plot(
        series,
        x_label="calls of the network",
        y_label="error of latents (RMS)",
        mark=found.reference.doubt.rms or None,
        mark_label="the reference's own doubt",
    )
