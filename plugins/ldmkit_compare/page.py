"""A comparison as a self-contained HTML file: table, plot, contact sheets; for light and dark, wide and narrow
screens."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from html import escape
from pathlib import Path

from ldmkit_drawing.loglog import shade, svg, svg_key
from torch import Tensor

from ldmkit import to_pil, write_new
from ldmkit_compare.plots import plot_of
from ldmkit_compare.results import HEADS, Comparison
from ldmkit_compare.runs import Pictures
from ldmkit_compare.sheet import caption

LARGEST, LOSSLESS = 256, 128
"""Sides in pixels: larger pictures are scaled down; those up to the second are kept bit for bit."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2026; --faint: #66707c; --paper: #fff; --panel: #f4f5f7; --rule: #dfe2e7 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --faint: #9aa3ad; --paper: #15181c; --panel: #1e2227; --rule: #343a42 }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word }
h1 { font-size: 1.5rem; line-height: 1.2; margin: .5rem 0 }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
h3 { font-size: .95rem; margin: 1rem 0 .25rem; font-weight: 600 }
p, li { max-width: 46rem } .faint, figcaption { color: var(--faint); font-size: .875rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .875rem; white-space: nowrap }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--rule) }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper) }
thead th { color: var(--faint); font-weight: 500 } tbody th { font-weight: 600 }
tr.first > * { border-top: 1px solid var(--faint) }
.plot { max-width: 36rem } .plot > svg { width: 100%; height: auto; display: block }
.plot text { fill: var(--faint); font-family: inherit }
.line { stroke: currentColor; stroke-width: 2 } .line.grid { stroke: var(--rule); stroke-width: 1 }
.line.faint { stroke: var(--faint); stroke-width: 1 }
.spot { fill: currentColor; stroke: currentColor; stroke-width: 1.5 } .spot.hollow { fill: var(--paper) }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; margin: .5rem 0 }
.legend li { display: flex; align-items: center; gap: .4rem; font-size: .875rem }
.row { display: grid; gap: .4rem; grid-template-columns: repeat(var(--count), minmax(3.6rem, 9rem)); overflow-x: auto }
figure { margin: 0 } figure img { width: 100%; height: auto; display: block; border-radius: 3px }
figcaption { font-size: .75rem; line-height: 1.3 } details { margin: .5rem 0 } summary { cursor: pointer }
"""


def page(found: Comparison, pictures: Pictures) -> str:
    """The file's text."""
    title = f"Samplers of {found.model} compared"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{STYLE}{_inks(found)}</style>\n</head>\n<body>",
            f"<h1>{escape(title)}</h1>\n<p>{escape(found.facts)}</p>",
            *_plot(found),
            "<h2>Figures</h2>",
            *_table(found),
            *(f'<p class="faint">{escape(note)}</p>' for note in found.notes),
            f'<p class="faint">Everything took {found.seconds:.0f} s (plan {escape(found.plan)}).</p>',
            "<h2>Pictures</h2>",
            *_sheets(found, pictures),
            "</body>\n</html>\n",
        ]
    )


def save_html(text: str, path: Path, overwrite: bool = False) -> Path:
    """Write it whole or not at all; a name that is taken gets the next free number, unless `overwrite`."""
    return write_new(path, lambda file: file.write_text(text, encoding="utf-8"), overwrite=overwrite)


def _inks(found: Comparison) -> str:
    shades = [shade(i) for i in range(len(found.samplers))]
    light = "".join(f".s{i} {{ color: rgb{one} }}" for i, (one, _) in enumerate(shades))
    dark = "".join(f".s{i} {{ color: rgb{one} }}" for i, (_, one) in enumerate(shades))
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n"


def _plot(found: Comparison) -> Iterator[str]:
    plot = plot_of(found)
    yield f'<h2>Error over calls of the network</h2>\n<div class="plot">{svg(plot)}\n<ul class="legend">'
    for i, series in enumerate(plot.series):
        noise = ' <span class="faint">(draws noise)</span>' if series.hollow else ""
        yield f"<li>{svg_key(i, series.hollow)}<span>{escape(series.name)}{noise}</span></li>"
    yield "</ul></div>"


def _table(found: Comparison) -> Iterator[str]:
    yield '<div class="scroll"><table>\n<thead><tr>'
    yield "".join(f'<th scope="col">{head}</th>' for head in HEADS) + "</tr></thead>\n<tbody>"
    before = None
    for run in found.runs:
        name, *cells = found.cells(run)
        kind = "" if name == before else ' class="first"'
        shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        yield f'<tr{kind}><th scope="row">{escape(name)}</th>{shown}</tr>'
        before = name
    yield "</tbody></table></div>"


def _sheets(found: Comparison, pictures: Pictures) -> Iterator[str]:
    yield '<p class="faint">Beneath each picture: steps, error of all latents, seconds of sampling.</p>'
    for index, seed in enumerate(found.seeds):
        yield f"<details{' open' if index == 0 else ''}><summary>Seed {seed}</summary>"
        reference = _figure(pictures.reference[index], "reference", f"reference, seed {seed}")
        for name in found.samplers:
            runs = found.runs_of(name)
            yield f'<h3>{escape(name)}</h3>\n<div class="row" style="--count: {len(runs) + 1}">{reference}'
            for run in runs:
                told = f"{run.steps}: {caption(found, run)}"
                image = pictures.runs.get((run.sampler, run.steps))
                shown = None if image is None else image[index]
                yield _figure(shown, told, f"{name}, {run.steps} steps, seed {seed}")
            yield "</div>"
        yield "</details>"


def _figure(image: Tensor | None, told: str, name: str) -> str:
    shown = "" if image is None else f'<img src="{_data(image)}" alt="{escape(name)}">'
    return f"<figure>{shown}<figcaption>{escape(told)}</figcaption></figure>"


def _data(image: Tensor) -> str:
    picture = to_pil(image)[0]
    small = max(picture.size) <= LOSSLESS
    picture.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    picture.save(file, format="PNG" if small else "JPEG", optimize=True, quality=88)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(file.getvalue()).decode()}"
