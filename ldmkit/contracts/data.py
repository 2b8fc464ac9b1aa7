"""What training data look like to the rest: sources of samples, found by name like every other part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from ldmkit.contracts.example import Example
from ldmkit.contracts.value import Value, integer
from ldmkit.errors import InputError

Geometry: TypeAlias = Literal["none", "boxes", "map"]
"""How a crop or a mirror changes an input: not at all; boxes, as the layout conditioners take them (a list of
{"label", "box": [x0, y0, x1, y1] relative to the picture}); a map (H,W) of labels, one a pixel of the picture."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture and what is known about it.

    Args:
        id: unique within its source; errors and reports name it (a file's path relative to the source's folder).
        image: (H,W,3) uint8, RGB, upright.
        inputs: raw inputs of conditioners by name (`text`, `label`, `layout`, `semantic` ...); a modality that
            this sample has not is left out. Plain data (a picture by its path or as a data URI), and arrays for maps.
    """

    id: str
    image: np.ndarray
    inputs: Mapping[str, Any] = field(default_factory=dict)


class Dataset(ABC):
    """An opened source: random access, and sample i is always the same one."""

    geometry: Mapping[str, Geometry]
    """Every input name that its samples may have, and how crops and mirrors change it."""

    notes: Sequence[str] = ()
    """What a reader of the plan should know: what was left out or mended, and how often."""

    mixture: tuple[tuple[int, int], ...] = ()
    """(samples, draws) of stretches of indices, in order and all of them, where samples are not drawn equally often: of
    every sum of the draws, so many are of that stretch, which has epochs of its own. Empty: an epoch has each once."""

    numbering: Mapping[str, Sequence[str]] = {}
    """Inputs whose labels are positions in a list of names -> that list: sources used together must have the same."""

    choices: frozenset[str] = frozenset()
    """Inputs whose value may be a list of alternatives (captions): one of them is drawn whenever a sample is used."""

    @abstractmethod
    def __len__(self) -> int:
        """How many samples there are."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, 0 <= index < len.

        Raises:
            InputError: `bad-file`, naming the file: the picture or an annotation cannot be read.
        """

    @abstractmethod
    def id(self, index: int) -> str:
        """The id of sample `index`, without reading its picture."""

    def inputs(self, index: int) -> Mapping[str, Any]:
        """The inputs of sample `index` alone; sources that know them without reading the picture do not read it."""
        return self[index].inputs

    def known(self, index: int) -> Mapping[str, Any] | None:
        """The inputs of sample `index` that need no picture or map to be decoded: all of them are looked at before
        training begins. None: that cannot be had; some samples are then looked at.

        Raises:
            InputError: `bad-file`, as `inputs`.
        """
        return None

    def base(self, index: int, name: str) -> Path | None:
        """Folder that relative paths in the input `name` of sample `index` start from; None: they stand as they are."""
        return None

    def content(self, index: int) -> tuple[bytes, bytes] | None:
        """Bytes that stand for the inputs and for the picture (and maps) of sample `index`, got without decoding it:
        the same wherever the files lie and whenever they were written. None: that cannot be had; a run that is
        resumed then compares some samples alone.
        """
        return None

    def picture_size(self, index: int) -> tuple[int, int] | None:
        """(height, width) of the upright picture of sample `index`, got without decoding it. None: that cannot be had,
        or the file is damaged.
        """
        return None

    @property
    def fingerprint(self) -> str:
        """Text that changes when the data do (names, sizes and times of files): caches of latents are keyed by it."""
        return "\n".join(self.id(index) for index in range(len(self)))


class Data(Value, ABC):
    """A source of samples, as a recipe names it; a kind of part of its own (entry-point group `ldmkit.data`)."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]
    """See `Part.examples` and `Part.api`."""

    @abstractmethod
    def open(self, folder: Path) -> Dataset:
        """Index the source; relative paths start from `folder`, the recipe's.

        Raises:
            InputError: files that are missing or cannot be understood, naming each.
        """

    def write_example(self, folder: Path) -> None:
        """Write small files into an empty folder, which this configuration of `examples` then opens: for checks.

        Nothing where a source reads no files.
        """


PLAIN = "text (a picture's path or data URI), numbers, lists, boxes or maps; or data.cache: null"
"""What may stand beside cached latents."""


def plain(value: Any, where: str) -> Any:
    """An input as JSON data, as a cache of latents keeps it beside them; label maps are kept as arrays.

    Raises:
        InputError: `not-cacheable`: a picture, a tensor, an array ...
    """
    if isinstance(value, (str, bool, float, type(None))):
        return value
    if (number := integer(value)) is not None:
        return number
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, where) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [plain(item, where) for item in value]
    what = f"a {type(value).__name__} cannot be kept beside cached latents"
    raise InputError("not-cacheable", what, where=where, fits=PLAIN)
