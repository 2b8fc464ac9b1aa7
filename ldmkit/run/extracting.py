"""Hints made on the fly: an input given as a picture and an extractor, and what recipes hold of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ldmkit.contracts.extractor import Extractor
from ldmkit.errors import LdmkitError, RunError, SourceError, raised, shown, warn
from ldmkit.files.hints import MASKED, is_levels
from ldmkit.files.levels import to_levels
from ldmkit.run.extraction import Extraction, Extractions, digests_of
from ldmkit.run.guards import check_returned, parsed_by, part_name
from ldmkit.run.owning import owned
from ldmkit.run.request import Request, Strategy, strategy

Row = Mapping[str, Any]
KEYS = frozenset(("picture", "extract"))
"""The keys of an `Extracted` as JSON; `sha256` may stand beside them."""


class Extracted(NamedTuple):
    """An input that an extractor makes: `pipe({"text": ..., "hint": ldmkit.Extracted("photo.png", "canny")})`.

    The mapping `{"picture": "photo.png", "extract": "canny"}` means the same.

    Args:
        picture: what the extractor takes: a picture for most, keypoints or labels for others.
        extract: a name, a value, or a spec with its config (`{"type": "canny", "config": {"low": 50}}`).
        sha256: of the weights that the extractor reads, by the field that names them, as recipes hold it; others are
            refused.
    """

    picture: Any
    extract: Strategy
    sha256: Any = None


def with_hints(request: Request) -> Request:
    """A request with the hints in the place of `Extracted` inputs.

    Raises:
        InputError, PluginError, RunError: as `extract_rows`.
    """
    inputs, extracted = extract_rows(request.inputs, "inputs")
    negative, negative_extracted = extract_rows(request.negative, "negative")
    return replace(
        request, inputs=inputs, extracted=extracted, negative=negative, negative_extracted=negative_extracted
    )


def extract_rows(rows: Sequence[Row], where: str) -> tuple[tuple[Row, ...], Extractions]:
    """Rows of raw inputs with the hints in the place of `Extracted` inputs, and what these hints were made of.

    A row, or an input, that stands in many places is extracted once.

    Raises:
        InputError: the picture cannot be read or does not fit the extractor.
        PluginError: there is no such extractor.
        RunError: `bad-return`: the extractor breaks its contract.
        SourceError: no such weights; `other-weights`.
    """
    inputs: dict[int, tuple[Any, Extraction]] = {}
    made: dict[int, tuple[Row, Mapping[str, Extraction]]] = {}
    for number, row in enumerate(rows):
        if id(row) in made:
            continue
        place = where if len(rows) == 1 else f"{where}[{number}]"
        found: dict[str, Extraction] = {}
        hints: dict[str, Any] = {}
        for name, raw in row.items():
            if (asked := _asked(raw)) is None:
                continue
            if id(raw) not in inputs:
                inputs[id(raw)] = _extracted(asked, f"{place}.{name}")
            hints[name], found[name] = inputs[id(raw)]
        made[id(row)] = ({**row, **hints} if hints else row, found)
    return tuple(made[id(row)][0] for row in rows), tuple(made[id(row)][1] for row in rows)


def hint_of(extractor: Extractor, value: Any) -> Tensor:
    """The hint (3, H, W) in [-1, 1] of a parsed input.

    Raises:
        InputError: the input does not fit the extractor.
        RunError: `bad-return`: what it returns is no hint; `extractor-failed`.
    """
    try:
        with torch.no_grad():
            found = extractor.extract(value)
        height, width = extractor.hint_size(value)
    except LdmkitError:
        raise
    except Exception as problem:
        what = f"{part_name('extractor', extractor)} failed: {raised(problem)}"
        raise RunError("extractor-failed", what) from problem
    hint = check_returned(found, [(3, height, width)], "extractor", extractor, "extract")
    if hint.dtype != torch.float32 or hint.device.type != "cpu" or not is_levels(hint):
        what = f"{part_name('extractor', extractor)} breaks its contract: extract returned values that are no levels"
        raise RunError("bad-return", what, fits="float32 of 8-bit levels k / 127.5 - 1, or MASKED, on the CPU")
    if hint[0].numel() > 1 and bool((hint == hint[:, :1, :1]).all()):
        who = part_name("extractor", extractor)
        warn(f"the hint of {who} is one colour in every pixel: nothing is drawn on it")
    return hint


def extractor_of(given: Strategy) -> Extractor:
    """An extractor from a name, a value or a spec.

    Raises:
        InputError, SpecError, PluginError: as of any strategy.
    """
    made: Extractor = strategy("extractor", given, None, Extractor)
    return made


def is_extracted(raw: Any) -> bool:
    """Whether a raw input is an `Extracted`, or the mapping that means one."""
    return _asked(raw) is not None


def _asked(raw: Any) -> Extracted | None:
    if isinstance(raw, Extracted):
        return raw
    if isinstance(raw, Mapping) and len(raw) <= len(KEYS) + 1 and KEYS <= set(raw) <= KEYS | {"sha256"}:
        return Extracted(raw["picture"], raw["extract"], raw.get("sha256"))
    return None


def _check_weights(extractor: Extractor, wanted: Any, where: str) -> None:
    """Refuse weights other than those of a recipe.

    Raises:
        SourceError: `other-weights`.
    """
    if wanted is None:
        return
    found = digests_of(extractor)
    if found != wanted:
        what = f"the weights of {part_name('extractor', extractor)} have changed: SHA-256 {shown(found, 200)}"
        fits = f"those that the hint was made with: {shown(wanted, 200)}"
        raise SourceError("other-weights", what, where=f"{where}.sha256", fits=fits)


def _extracted(asked: Extracted, where: str) -> tuple[Any, Extraction]:
    """The hint as an input that conditioners of pictures read, and what it is made of."""
    try:
        extractor = extractor_of(asked.extract)
        _check_weights(extractor, asked.sha256, where)
        value = owned(parsed_by(extractor, lambda: part_name("extractor", extractor), asked.picture, where))
    except LdmkitError as problem:
        problem.where = problem.where if problem.where and problem.where.startswith(where) else _under(where, problem)
        raise
    hint = hint_of(extractor, value)
    if bool((hint == MASKED).any()):
        return hint, Extraction(extractor, value)
    return Image.fromarray(to_levels(hint)), Extraction(extractor, value)


def _under(where: str, problem: LdmkitError) -> str:
    return f"{where}: {problem.where}" if problem.where else where
