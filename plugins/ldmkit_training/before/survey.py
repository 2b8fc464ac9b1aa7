"""Looks at the inputs of all samples together, for what no single one of them shows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ldmkit import Dataset, InputError, Stage
from ldmkit_training.data.batches import chosen_inputs, held_out, input_names
from ldmkit_training.data.captions import captioned
from ldmkit_training.data.choosing import each_of
from ldmkit_training.data.identity import SPREAD
from ldmkit_training.data.section import DataSection
from ldmkit_training.data.sources.records import first_few

MOST = 10_000
"""Samples that are looked at, at equal distances."""


class Row(NamedTuple):
    """The inputs of a sample, as the source has them, and as the stage parsed what the captions' rules make of them."""

    id: str
    inputs: Mapping[str, Any]
    parsed: Mapping[str, Any]


_MISSING = re.compile(r"\s*(nan|none|null|nil|<na>|n/a|#n/a|undefined)\s*", re.IGNORECASE)
_DUMPED = re.compile(r"""\s*(\[\s*['"].*['"]\s*\]|\{\s*['"].*\})\s*""", re.DOTALL)


def parsed_rows(stage: Stage, dataset: Dataset, section: DataSection) -> list[Row]:
    """The inputs of samples as they are trained on, in each of their wordings; pictures are decoded of `SPREAD` samples
    where the source cannot tell its inputs without them."""
    names = input_names(dataset, section, stage.inputs)
    return list(_parsed(stage, dataset, section, names)) if names and len(dataset) else []


def _parsed(stage: Stage, dataset: Dataset, section: DataSection, names: Mapping[str, str]) -> Iterator[Row]:
    cheap = dataset.known(0) is not None
    for index in held_out(len(dataset), MOST if cheap else SPREAD):
        try:
            inputs = (dataset.known(index) or {}) if cheap else dataset.inputs(index)
            for one in each_of(inputs, dataset.choices):
                row = chosen_inputs(captioned(one, section.captions), names)
                yield Row(dataset.id(index), chosen_inputs(one, names), stage.parsed(row, dataset.id(index)))
        except InputError:
            continue  # said by `checked_rows`, or when it is read


def said_of_texts(rows: Sequence[Row]) -> list[str]:
    """What is to be said of texts that a program wrote where it had no text, or had several."""
    missing, dumped = dict[str, str](), dict[str, str]()
    for row in rows:
        for text in (row.inputs[name] for name, value in row.parsed.items() if isinstance(value, str)):
            if isinstance(text, str) and _MISSING.fullmatch(text):
                missing.setdefault(row.id, text.strip())
            elif isinstance(text, str) and _DUMPED.fullmatch(text):
                dumped.setdefault(row.id, text.strip())
    said = []
    if missing:
        shown = " or ".join(map(repr, dict.fromkeys(missing.values())))
        said.append(
            f"data: the text of {len(missing)} sample(s) is {shown}, which programs write for a text that is missing: "
            f"{first_few(missing)} (an empty cell or null, if that is meant)"
        )
    if dumped:
        said.append(
            f"data: the text of {len(dumped)} sample(s) is a list or a mapping as a program prints it: "
            f"{first_few(dumped)}, {next(iter(dumped.values()))[:40]!r} (captions one by one, if that is meant)"
        )
    return said
