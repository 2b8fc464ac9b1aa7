"""A comparison as one picture: the plot, and the first picture of every run beside the reference's."""

from __future__ import annotations

from pathlib import Path

from ldmkit_drawing.drawings import absent
from ldmkit_drawing.loglog import picture
from ldmkit_drawing.sheets import FAINT, PAPER, Cell, Content, Sheet, Style, words
from PIL import Image

from ldmkit import write_new
from ldmkit_compare.plots import plot_of
from ldmkit_compare.results import Comparison, DrawnRun
from ldmkit_compare.runs import Pictures

STYLE = Style(tile=108, gutter=120)
NARROWEST, WIDEST = 480, 680


def contact_sheet(found: Comparison, pictures: Pictures, index: int = 0) -> Sheet:
    """Rows of samplers, columns of steps, the reference beside each row; of picture number `index`."""
    seed = found.seeds[index]
    sheet = Sheet(
        "",
        ("reference", *(f"{steps} steps" for steps in found.steps)),
        note=f"Pictures of seed {seed}. Beneath each: error of all pictures' latents, seconds of sampling.",
        style=STYLE,
    )
    for name in found.samplers:
        cells = [Cell(_content(run, pictures, index), caption(found, run)) for run in found.runs_of(name)]
        sheet.row(pictures.reference[index], *cells, label=name)
    return sheet


def caption(found: Comparison, run: DrawnRun) -> str:
    """Error and time of a run, in few letters."""
    if run.figures is None:
        return "failed"
    return f"{found.cells(run)[3]}, {run.seconds:.2g} s"


def draw(found: Comparison, pictures: Pictures) -> Image.Image:
    """The whole picture: what was drawn, the plot, the contact sheet."""
    sheet = contact_sheet(found, pictures).render()
    width = max(sheet.width, NARROWEST)
    inner = width - 2 * STYLE.margin
    chart = picture(plot_of(found), min(inner, WIDEST), round(min(inner, WIDEST) * 0.56))
    title = words(f"Samplers of {found.model} compared", inner, round(STYLE.text * 1.6))
    told = words("\n".join([found.facts, found.about_reference, found.about_noise]), inner, STYLE.text, FAINT, lines=12)
    blocks = [(title, STYLE.margin), (told, STYLE.margin), (chart, STYLE.margin), (sheet, 0)]
    height = STYLE.margin + sum(block.height + STYLE.gap for block, _ in blocks)
    image, top = Image.new("RGB", (width, height), PAPER), STYLE.margin
    for block, left in blocks:
        image.paste(block, (left, top))
        top += block.height + STYLE.gap
    return image


def save_png(image: Image.Image, path: Path, overwrite: bool = False) -> Path:
    """Write it whole or not at all; a name that is taken gets the next free number, unless `overwrite`."""
    return write_new(path, lambda file: image.save(file, format="PNG", optimize=True), overwrite=overwrite)


def _content(run: DrawnRun, pictures: Pictures, index: int) -> Content:
    image = pictures.runs.get((run.sampler, run.steps))
    return absent("failed") if image is None else image[index]
