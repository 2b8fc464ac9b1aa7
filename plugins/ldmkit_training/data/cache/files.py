"""The files of a cache of latents.

`cache.json` describes it, and is there only when all else is complete; `mode.npy`, `deviation.npy` (rows, C, h, w);
`map-NAME.npy` (rows, H, W) of labels, (rows, H, W, 3) of colours; `rows.jsonl`, one row a line: its id, its other
inputs, and which maps it has;
`rows.npy`, the offset of each line; `digests.npy` (rows, 16), what each view showed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
from pydantic import BeforeValidator, Field

from ldmkit import LdmkitError, Value, read_json
from ldmkit.files.reading import check_ordinary
from ldmkit.models.digests import page_sums
from ldmkit_training.data.places import Place

META = "cache.json"
LINES, OFFSETS = "rows.jsonl", "rows.npy"
MODE, DEVIATION = "mode.npy", "deviation.npy"
DIGESTS = "digests.npy"


def _numbered(value: Any) -> Any:
    """Keys as numbers: in JSON they are text."""
    if not isinstance(value, Mapping):
        return value
    return {int(k) if isinstance(k, str) and re.fullmatch("[0-9]{1,18}", k) else k: v for k, v in value.items()}


Damaged: TypeAlias = Annotated[dict[int, str], BeforeValidator(_numbered)]
"""Index of a sample -> what was wrong with its file."""


class Meta(Value):
    """What `cache.json` holds. `files`: name -> its page sums (`ldmkit.models.digests`); None in older caches."""

    key: dict[str, str]
    samples: int = Field(ge=1)
    views: int = Field(ge=1)
    deviation: bool
    maps: tuple[str, ...] = ()
    damaged: Damaged = Field(default_factory=dict)
    files: dict[str, str] | None = None


def read_meta(folder: Path) -> Meta | None:
    """The description of a complete cache; None where there is none, or one that cannot be read."""
    if not (folder / META).is_file():
        return None
    try:
        return Meta.of(read_json(folder / META), str(folder / META))
    except LdmkitError:
        return None  # of another version, or damaged: built anew like one that is out of date


def changed_file(folder: Path, meta: Meta) -> str | None:
    """The first file that is not what was written, read at the speed of memory; None where all are."""
    for name, sums in (meta.files or {}).items():
        try:
            if name != Path(name).name or not check_ordinary(folder / name) or page_sums(folder / name) != sums:
                return name
        except (LdmkitError, OSError):
            return name
    return None


def differing(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Names of the aspects in which two keys differ."""
    return [name for name in {**new, **old} if old.get(name) != new.get(name)]


FIELD = "/"
"""Between an input and its field in the name of an array."""


def map_name(place: Place) -> str:
    """What the array at a place is called."""
    return place.name if place.field is None else f"{place.name}{FIELD}{place.field}"


def map_file(name: str) -> str:
    """File of the maps of an input."""
    return f"map-{name.replace(FIELD, '.')}.npy"


class StoredInputs:
    """The ids and inputs of a complete cache, by row."""

    def __init__(self, folder: Path, meta: Meta) -> None:
        self._lines = np.memmap(folder / LINES, mode="r", dtype=np.uint8)
        self._offsets = np.load(folder / OFFSETS, mmap_mode="r")
        self._maps = {name: np.load(folder / map_file(name), mmap_mode="r") for name in meta.maps}

    def read(self, row: int) -> tuple[str, dict[str, Any]]:
        """Id and raw inputs by name."""
        name, inputs, maps = json.loads(self._lines[self._offsets[row] : self._offsets[row + 1]].tobytes())
        for key in maps:
            outer, _, field = key.partition(FIELD)
            array = np.array(self._maps[key][row])
            inputs[outer] = {**inputs[outer], field: array} if field else array
        return name, inputs
