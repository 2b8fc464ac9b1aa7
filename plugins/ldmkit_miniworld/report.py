"""What an evaluation found: figures of each set of conditions beside ceiling and floor, as values and a table."""

from __future__ import annotations

from ldmkit import Value
from ldmkit.cli.tables import aligned
from ldmkit_miniworld.metrics import LayoutFigures, TextFigures


class Figures(Value):
    """Of one set of pictures; None where it was not asked for.

    Args:
        label: share of pictures whose scene type is the class asked for.
        semantic: mean intersection over union of the map asked for and the oracle's map of the picture.
        frechet: distance to other renders in the oracle's feature space; of few pictures it is biased upwards, by as
            much for renders as for drawn ones: compare equal counts only.
        diversity: mean distance of two pictures in that space.
    """

    text: TextFigures | None = None
    label: float | None = None
    layout: LayoutFigures | None = None
    semantic: float | None = None
    frechet: float | None = None
    diversity: float | None = None

    @property
    def main(self) -> dict[str, float]:
        """The shares that say whether what was asked for is there, by name; those that were taken."""
        text, layout = self.text, self.layout
        shares = {
            "objects": text.objects if text else None,
            "colours": text.colours if text else None,
            "class": self.label,
            "recall.5": layout.recall50 if layout else None,
            "mIoU": self.semantic,
        }
        return {name: value for name, value in shares.items() if value is not None}


class Row(Value):
    """Pictures drawn from some conditions: their figures, and how long drawing took."""

    conditions: tuple[str, ...]
    figures: Figures
    seconds: float


class EvalReport(Value):
    """An evaluation.

    Args:
        model, split, count, size, steps, sampler, guidance, seed, plan: what was drawn, and how; picture i has seed
            `seed + i`, and none is picked.
        oracle: the oracle's own accuracy on held-out renders, by the name of the figure.
        renders: the same figures for the world's own pictures of these conditions.
        codec: for those pictures after the model's codec: the ceiling of what it can draw.
        shuffled: for the world's pictures against the conditions of the next one: the floor.
        rows: one for each set of conditions.
    """

    model: str
    split: str
    count: int
    size: int
    steps: int
    sampler: str
    guidance: str
    seed: int
    plan: str
    oracle: dict[str, float]
    renders: Figures
    codec: Figures
    shuffled: Figures
    rows: tuple[Row, ...]

    def row(self, *conditions: str) -> Row:
        """The row of these conditions, in any order.

        Raises:
            KeyError: it was not drawn.
        """
        for row in self.rows:
            if set(row.conditions) == set(conditions):
                return row
        raise KeyError(" + ".join(conditions))

    def shortfalls(self) -> dict[str, tuple[float, tuple[str, ...]]]:
        """By measure: how far the worst set of several conditions falls behind the same condition alone (negative:
        none does), and which set that is. Only measures that were taken both ways."""
        found: dict[str, tuple[float, tuple[str, ...]]] = {}
        alone = {
            name: value for row in self.rows if len(row.conditions) == 1 for name, value in row.figures.main.items()
        }
        for row in self.rows:
            for name, value in row.figures.main.items() if len(row.conditions) > 1 else ():
                if name in alone and (name not in found or alone[name] - value > found[name][0]):
                    found[name] = (alone[name] - value, row.conditions)
        return found

    def table(self) -> str:
        """Text for people: one line a set of conditions, then ceiling and floor."""
        told = (
            f"{self.model}: {self.count} pictures of {self.size}x{self.size} a row, split {self.split}, "
            f"seeds {self.seed} to {self.seed + self.count - 1}, "
            f"{self.steps} steps of {self.sampler}, guidance {self.guidance}"
        )
        ends = {"(the world's own)": self.renders, "(after the codec)": self.codec, "(shuffled)": self.shuffled}
        lines = [(" + ".join(row.conditions), row.figures) for row in self.rows]
        blocks = []
        for heads, cells in ((_TEXT, _text_cells), (_REST, _rest_cells)):
            shown = [(name, *cells(figures, self.codec)) for name, figures in lines]
            shown += [(name, *cells(figures, None)) for name, figures in ends.items()]
            if len(kept := [row for row in shown if any(row[1:])]) > len(ends):
                blocks += ["", *aligned([("asked for by", *heads), *kept])]
        worst = [f"{name} {0.0 - gap:+.3f} ({' + '.join(where)})" for name, (gap, where) in self.shortfalls().items()]
        behind = ["", "several conditions beside each alone, at worst: " + ", ".join(worst)] if worst else []
        own = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in self.oracle.items() if value <= 1)
        return "\n".join([told, *blocks, *behind, "", f"the oracle itself, on renders it never saw: {own}"])


_TEXT = ("objects", "colours", "too many", "relations", "scene", "time")
_REST = ("class", "recall.5", "recall.75", "kinds.5", "false", "mIoU", "of ceiling", "frechet", "diversity")


def _text_cells(figures: Figures, _: Figures | None) -> tuple[str, ...]:
    text = figures.text
    told = (text.objects, text.colours, text.false, text.relations, text.label, text.time) if text else (None,) * 6
    return tuple(_number(value) for value in told)


def _rest_cells(figures: Figures, ceiling: Figures | None) -> tuple[str, ...]:
    layout, share = figures.layout, None
    if figures.semantic is not None and ceiling is not None and ceiling.semantic:
        share = figures.semantic / ceiling.semantic
    laid = (layout.recall50, layout.recall75, layout.kinds50, layout.false) if layout else (None,) * 4
    rest = (figures.label, *laid, figures.semantic, share, figures.frechet, figures.diversity)
    return tuple(_number(value) for value in rest)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
