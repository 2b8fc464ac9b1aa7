"""The layers that a recipe's patterns name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from ldmkit_adapters.lora.adapter import path_of
from ldmkit_checkpoints.lora.layers import Layer, names_in

from ldmkit import CompositionError, Pipeline, suggest
from ldmkit_training.stages.lora.section import LoraSection

DENOISER = "denoiser"


class Target(NamedTuple):
    """A layer that may be changed, or some outputs of one, and its paths: ldmkit's first, then published ones."""

    layer: Layer
    paths: tuple[str, ...]

    def fits(self, pattern: str) -> bool:
        """Whether a pattern is for one of its paths, or for the end of one."""
        return any(fnmatchcase(path, pattern) or fnmatchcase(path, f"*.{pattern}") for path in self.paths)


def targets_in(pipeline: Pipeline) -> dict[str, list[Target]]:
    """`denoiser` or a conditioner's name -> what may be changed there, in the order of its layers."""
    found: dict[str, dict[tuple[str, tuple[int, int] | None], Target]] = {}
    for names in names_in(pipeline).values():
        for path, layer in names.dotted.items():
            part, own = _part_of(layer)
            places = found.setdefault(part, {})
            known = places.get((layer.port, layer.rows))
            paths = (*((own,) if known is None else known.paths), path)
            places[layer.port, layer.rows] = Target(layer if known is None else known.layer, paths)
    return {part: list(places.values()) for part, places in found.items()}


def chosen(section: LoraSection, pipeline: Pipeline) -> list[tuple[Target, int]]:
    """The layers to change, each with its rank.

    Raises:
        CompositionError: `no-ports`, `unknown-conditioner`, `unknown-target`: what there is instead is named.
    """
    found = targets_in(pipeline)
    for name in section.conditioners:
        if name not in pipeline.conditioners:
            what, known = f"the model has no conditioner {name!r}", pipeline.conditioners
            raise CompositionError(
                "unknown-conditioner", what, where=f"lora.conditioners.{name}", fits=suggest(name, known)
            )
    asked: dict[str, tuple[str, Sequence[str]]] = {DENOISER: ("lora.targets", section.targets)}
    asked |= {name: (f"lora.conditioners.{name}", patterns) for name, patterns in section.conditioners.items()}
    targets = [
        target
        for part, (where, patterns) in asked.items()
        if patterns
        for target in _matching(part, patterns, where, found)
    ]
    return list(zip(targets, _ranks(section, targets), strict=True))


def _matching(part: str, patterns: Sequence[str], where: str, found: Mapping[str, list[Target]]) -> list[Target]:
    if part not in found:
        what = f"{part!r} has no layers that can be changed: it publishes no ports linear.<path> or conv.<path>"
        fits = f"a part that does: {', '.join(found) or 'this model has none'}"
        raise CompositionError("no-ports", what, where=where, fits=fits)
    for pattern in patterns:
        if not any(target.fits(pattern) for target in found[part]):
            what = f"no layer of {part!r} fits {pattern!r}"
            raise CompositionError("unknown-target", what, where=where, fits=_near(pattern, found[part]))
    return [target for target in found[part] if any(target.fits(pattern) for pattern in patterns)]


def _near(pattern: str, targets: Sequence[Target]) -> str:
    """A path or an end of one that was probably meant, else the ends that there are."""
    paths = [path for target in targets for path in target.paths]
    ends = {_end(path) for path in paths}
    said = suggest(pattern, {*paths, *ends})
    return said if said.startswith("did you mean") else suggest(pattern, ends)


def _end(path: str) -> str:
    """The last names of a path, so many that they are no number alone."""
    head, _, last = path.rpartition(".")
    return f"{_end(head)}.{last}" if last.isdecimal() and head else last


def _ranks(section: LoraSection, targets: Sequence[Target]) -> list[int]:
    for pattern in section.ranks:
        if not any(target.fits(pattern) for target in targets):
            what = f"none of the {len(targets)} layers to change fits {pattern!r}"
            where = f"lora.ranks.{pattern}"
            raise CompositionError("unknown-target", what, where=where, fits=_near(pattern, targets))
    ranks = []
    for target in targets:
        fitting = [rank for pattern, rank in section.ranks.items() if target.fits(pattern)]
        ranks.append(fitting[-1] if fitting else section.rank)
    return ranks


def _part_of(layer: Layer) -> tuple[str, str]:
    """Whose layer it is, and its path there."""
    path = path_of(layer.port)
    if not layer.port.startswith("conditioners."):
        return DENOISER, path
    name, _, own = path.removeprefix("conditioners.").partition(".")
    return name, own
