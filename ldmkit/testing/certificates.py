"""The page of certificates: `python -m ldmkit.testing.certificates --write` updates docs/certificates.md.

It lists every sampler that comes with ldmkit: its first example with every prediction type, the others with eps.
"""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from ldmkit.contracts.sampler import Sampler
from ldmkit.plugins.catalogue import HOME, catalogue, load_entry
from ldmkit.testing.reference import Prediction
from ldmkit.testing.sampler.certificate import EXACT, TRIED, Certificate, calls, certify
from ldmkit.testing.sampler.marginals import ALLOWED, ALPHA, ROWS, STEPS

PAGE = "docs/certificates.md"
MARK = "<!-- Below this line, everything is made by: python -m ldmkit.testing.certificates --write -->"
TITLES: dict[Prediction, str] = {
    "eps": "Networks that predict the noise",
    "v": "Networks that predict v",
    "x0": "Networks that predict x0",
    "flow": "Rectified flows",
}


class Named(NamedTuple):
    """A sampler, named by its entry point and its example's fields; `first`: the first example of its class."""

    label: str
    sampler: Sampler
    first: bool


def in_tree() -> Iterator[Named]:
    """Every example of every sampler that comes with ldmkit."""
    for entry in catalogue():
        if entry.kind == "sampler" and entry.dist == HOME:
            cls: type[Sampler] = load_entry(entry)
            for number, example in enumerate(cls.examples):
                sampler = cls.of(example.config)
                fields = ", ".join(f"{name}={_field(value)}" for name, value in example.config.items())
                yield Named(f"`{entry.name}`" + (f" {fields}" if fields else ""), sampler, number == 0)


def _field(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


Row = dict[str, str]
"""A line of a table: column -> text."""


def row(label: str, found: Certificate) -> Row:
    """A certificate as a row of the page; measured numbers have two digits, so that machines agree."""
    return {
        "sampler": label,
        "order": _whole(found.declared),
        "measured": _order(found),
        "10 steps": _number(found.few),
        "20 steps": _number(found.some),
        "constant": _number(found.constant),
        "float32": _number(found.floor),
        "steps": _steps(found.failing),
        "calls": _calls(*found.calls),
        "moments": "" if found.p is None else f"{found.distance:.2g}, p = {found.p:.2g}",
        "revision": _whole(found.revision),
    }


DECLARED = ("order", "calls", "revision")
"""Columns that are declared, not measured."""
WITHIN = {"10 steps": 1.1, "20 steps": 1.1, "constant": 1.2, "float32": 4.0}
"""Measured columns, and the factor by which they may differ between machines (or, for rounding errors, by chance)."""
ORDERS_WITHIN = 0.05


def stale(shown: Row, found: Row) -> list[str]:
    """Columns in which a row of the page differs from a new certificate, with both values."""
    wrong = [name for name in (*DECLARED, "sampler", "steps") if shown[name] != found[name]]
    for name, factor in WITHIN.items():
        if "" in (shown[name], found[name]):
            wrong += [name] if shown[name] != found[name] else []
        elif abs(math.log((float(shown[name]) or 1e-99) / (float(found[name]) or 1e-99))) > math.log(factor):
            wrong += [name]
    (left, _, kind), (right, _, other) = shown["measured"].partition(" "), found["measured"].partition(" ")
    if kind != other or (left != right and abs(float(left) - float(right)) > ORDERS_WITHIN):
        wrong += ["measured"]
    return [f"{name}: {shown[name]!r}, now {found[name]!r}" for name in wrong]


def declared(sampler: Sampler) -> Row:
    """The declared columns of a row."""
    revision = _whole(getattr(sampler, "revision", None))
    return {"order": _whole(sampler.order), "calls": _calls(*calls(sampler)), "revision": revision}


def _whole(value: int | None) -> str:
    return "" if value is None else str(value)


def _order(found: Certificate) -> str:
    if found.few is None:
        return "no law"
    if found.measured is None:
        return "exact"
    return f"{found.measured:.2f}" + (" weak" if found.stochastic else "")


def _number(value: float | None) -> str:
    return "" if value is None else "0" if value < EXACT else f"{value:.1e}"


def _steps(failing: tuple[int, ...]) -> str:
    return f"1 to {TRIED[-1]}" + (f", not {', '.join(map(str, failing))}" if failing else "")


def _calls(each: float, more: float) -> str:
    sign = "" if not more else f" {'+' if more > 0 else '-'} {abs(more):g}"
    return f"{'' if each == 1 else f'{each:g} '}N{sign}"


def table(rows: list[Row]) -> list[str]:
    """Lines of Markdown."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *(list(one.values()) for one in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def tables(text: str) -> dict[Prediction, list[Row]]:
    """The rows of a page, by prediction type."""
    found: dict[Prediction, list[Row]] = {}
    for prediction, title in TITLES.items():
        section = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
        lines = [[cell.strip() for cell in line[1:-1].split("|")] for line in section.split("\n") if line[:1] == "|"]
        found[prediction] = [dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]] if lines else []
    return found


def page(opening: str) -> str:
    """The whole page; `opening` is the text above the mark."""
    lines = [opening.partition(MARK)[0].rstrip(), "", MARK, ""]
    tests = 0
    for prediction, title in TITLES.items():
        found = [(one.label, certify(one.sampler, prediction)) for one in in_tree() if one.first or prediction == "eps"]
        tests += sum(one.p is not None for _, one in found)
        lines += [f"## {title}", "", *table([row(label, one) for label, one in found]), ""]
    lines += ["## The test of moments", "", _statistics(tests), ""]
    return "\n".join(lines)


def _statistics(tests: int) -> str:
    return textwrap.fill(
        f"{tests} tests of {ROWS} samples and {STEPS} steps each, with fixed seeds. A sampler whose bias is at most "
        f"{ALLOWED:g} standard deviations fails one with a probability below {ALPHA:g}, and any of them with one below "
        f"{tests * ALPHA:.1g} (Bonferroni). p is the probability of moments as far from the exact ones as those "
        "that were found, or farther, for a sampler with exactly that bias; before it stands how far they were.",
        width=120,
    )


def file() -> Path:
    """docs/certificates.md of the source tree."""
    return Path(__file__).parents[2] / PAGE


def main(arguments: list[str]) -> int:
    """Rewrite the page; returns the exit code."""
    torch.set_num_threads(1)  # with such small tensors, several threads mostly wait for each other
    path = file()
    if "--write" in arguments:
        path.write_text(page(path.read_text(encoding="utf-8") if path.exists() else ""), encoding="utf-8")
    else:
        print(page(""))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
