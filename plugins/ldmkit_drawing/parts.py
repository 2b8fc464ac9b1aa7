"""The parts of a model as a drawing: what it is given, what reads that, the network, its process, and the codec.

    from ldmkit_drawing.parts import System, stage_of, svg
    Path("parts.svg").write_text(svg(System("miniworld", (stage_of("", ldmkit.load("miniworld")),))))

Each stage is a row. Inputs are on the left; those in green are what an earlier stage makes. A line says into which slot
of the network a condition goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from ldmkit import Pipeline

WIDTH, TOP, GAP, LINE = 960, 46, 26, 34
INPUT, READER, NETWORK, CODEC, RESULT = (20, 140), (186, 180), (452, 196), (690, 120), (842, 98)
"""Left edge and width of the columns."""
STYLE = """<style>
text { font: 13px sans-serif; fill: #1b2430 }
.g { font-weight: bold; font-size: 15px } .t { font-weight: bold } .p { font: 12px monospace; fill: #174ea6 }
.n { font-size: 12px; fill: #556 } .i { fill: #fff; stroke: #9db2d0 } .m { fill: #e6f4ea; stroke: #7cb68b }
.b { fill: #f3f6fb; stroke: #9db2d0 } .d { fill: #fdf3e3; stroke: #d9b36c } .a { stroke: #667; fill: none }
</style>
<defs><marker id="h" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0 0L8 4L0 8z" fill="#667"/></marker></defs>"""


class Given(NamedTuple):
    """A condition.

    Args:
        input: its name.
        reader: type of the conditioner.
        slot: of the network, or the adapter that it goes to.
        made: an earlier stage gives it.
    """

    input: str
    reader: str
    slot: str
    made: bool = False


class StageParts(NamedTuple):
    """One pipeline; every part by its type.

    Args:
        name: of the stage; "" where it is alone.
        given: its conditions.
        denoiser, process, sampler: the network and what it is run by.
        codec: between latents and data.
        result: what the stage makes.
        beside: adapters, a classifier and other parts that act in the network or on its estimate.
    """

    name: str
    given: tuple[Given, ...]
    denoiser: str
    process: str
    sampler: str
    codec: str
    result: str = "picture"
    beside: tuple[str, ...] = ()


class System(NamedTuple):
    """A title, and one stage or more."""

    title: str
    stages: tuple[StageParts, ...]


def stage_of(name: str, pipe: Pipeline, made: Sequence[str] = ()) -> StageParts:
    """The parts of a pipeline, as its spec has them.

    Args:
        name: of the stage.
        made: inputs that an earlier stage gives.
    """
    given = []
    for condition, wire in pipe.wiring.items():
        kind = pipe.conditioners[condition].kind
        name_in = wire.input or condition
        slot = wire.slot or _SLOTS.get(kind, kind)
        given.append(Given(name_in, wire.type, slot, name_in in made))
    spec, defaults = pipe.spec, pipe.defaults
    process = _typed(spec.process.type, dict(spec.process.config).get("prediction"))
    sampler = defaults.sampler.type if defaults.sampler else "any sampler"
    beside = tuple(adapter.type for adapter in spec.adapters.values())
    denoiser, codec = spec.denoiser.type, spec.codec.type
    return StageParts(name, tuple(given), denoiser, process, sampler, codec, beside=beside)


_SLOTS = {"tokens": "context"}
"""The U-Net's slot of a kind of signal; others are named after the kind."""


def svg(system: System) -> str:
    """The drawing, as an SVG that needs no other file."""
    rows, top = [], TOP
    for stage in system.stages:
        drawn, height = _stage(stage, top)
        rows += drawn
        top += height + GAP
    high = top - GAP + 14
    label = escape(system.title, quote=True)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high}" role="img" aria-label="{label}">'
    title = f'<text class="g" x="20" y="28">{escape(system.title)}</text>'
    paper = f'<rect width="{WIDTH}" height="{high}" fill="#fff"/>'
    return "\n".join([head, STYLE, paper, title, *rows, "</svg>"]) + "\n"


def _stage(stage: StageParts, top: int) -> tuple[list[str], int]:
    """A row of the drawing, and its height."""
    named = 20 if stage.name else 0
    lines = max(len(stage.given), 2)
    height = named + lines * LINE + 8 + 18 * len(stage.beside)
    drawn = [f'<text class="t" x="20" y="{top + 12}">{escape(stage.name)}</text>'] if stage.name else []
    first = top + named
    low = first + lines * LINE
    middle = first + (low - first) / 2 - 4
    free = (lines - len(stage.given)) * LINE / 2
    for i, given in enumerate(stage.given):
        drawn += _condition(given, first + free + i * LINE)
    drawn += _box("d", NETWORK, first, low - first - 8, stage.denoiser, f"{stage.process} · {stage.sampler}")
    drawn += [_arrow(NETWORK, CODEC, middle), *_box("b", CODEC, middle - 20, 40, stage.codec, "codec")]
    drawn += [_arrow(CODEC, RESULT, middle), *_box("m", RESULT, middle - 14, 28, stage.result, "")]
    for i, part in enumerate(stage.beside):
        drawn.append(f'<text class="p" x="{NETWORK[0] + 10}" y="{low + 10 + 18 * i}">+ {escape(part)}</text>')
    return drawn, height


def _condition(given: Given, y: float) -> list[str]:
    middle = y + 13
    label = f'<text class="n" x="{READER[0] + READER[1] + 6}" y="{_number(middle - 4)}">{escape(given.slot)}</text>'
    drawn = _box("m" if given.made else "i", INPUT, y, 26, given.input, "")
    drawn += [_arrow(INPUT, READER, middle), *_box("b", READER, y, 26, given.reader, "", part=True)]
    return [*drawn, _arrow(READER, NETWORK, middle), label]


def _box(
    kind: str, column: tuple[int, int], y: float, height: float, text: str, note: str, part: bool = False
) -> list[str]:
    left, width = column
    middle = y + height / 2 + (-3 if note else 4)
    drawn = [f'<rect class="{kind}" x="{left}" y="{_number(y)}" width="{width}" height="{_number(height)}" rx="5"/>']
    style = "p" if part or note else "t"
    drawn.append(f'<text class="{style}" x="{left + 10}" y="{_number(middle)}">{escape(text)}</text>')
    if note:
        drawn.append(f'<text class="n" x="{left + 10}" y="{_number(middle + 15)}">{escape(note)}</text>')
    return drawn


def _arrow(source: tuple[int, int], target: tuple[int, int], y: float) -> str:
    return f'<path class="a" d="M{source[0] + source[1]} {_number(y)}H{target[0] - 1}" marker-end="url(#h)"/>'


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _typed(name: str, prediction: Any) -> str:
    return f"{name}, {prediction}" if prediction else name
