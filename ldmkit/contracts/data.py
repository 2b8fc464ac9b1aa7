"""The contract of training data: sources of samples, which recipes name like any other part."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from ldmkit.contracts.data_content import framed, sample_bytes
from ldmkit.contracts.example import Example
from ldmkit.contracts.value import Value, integer
from ldmkit.errors import InputError

SPREAD = 64
"""Samples that stand for a source which cannot tell its content without decoding pictures."""

SAMPLED = "samples of"
"""In the fingerprint of such a source, between how many were looked at and how many there are."""

Geometry: TypeAlias = Literal["none", "boxes", "map"]
"""How an input changes with crops and horizontal flips: "none", not at all; "boxes", a list of {"label", "box": [x0,
y0, x1, y1] relative to the picture} as layout conditioners take it; "map", a label map (H,W), one label per pixel."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture and its annotations.

    Args:
        id: unique within its source, used in errors and reports (a file's path relative to the source's folder).
        image: (H,W,3) uint8, RGB, upright.
        inputs: raw inputs of conditioners by name (`text`, `label`, `layout`, `semantic` ...), without modalities that
            this sample lacks. Plain data (a picture as its path or a data URI), and arrays for maps.
    """

    id: str
    image: np.ndarray
    inputs: Mapping[str, Any] = field(default_factory=dict)


class Dataset(ABC):
    """An opened source with random access; sample i never changes."""

    geometry: Mapping[str, Geometry]
    """Every input name that samples may have -> how crops and flips change it."""

    notes: Sequence[str] = ()
    """Lines for the training plan, such as what was left out or repaired and how often."""

    mixture: tuple[tuple[int, int], ...] = ()
    """Sampling weights: (samples, draws) per consecutive range of indices, covering the whole dataset. Each range has
    its own epochs and gets `draws` out of every sum(draws) samples drawn. Empty: each sample once per epoch."""

    numbering: Mapping[str, Sequence[str]] = {}
    """Inputs whose labels are indices -> the list of names they index. Sources used together must have equal lists."""

    choices: frozenset[str] = frozenset()
    """Inputs whose value may be a list of alternatives (captions), one of which is drawn each time a sample is used."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, 0 <= index < len.

        Raises:
            InputError: `bad-file`, with the file's name, if the picture or an annotation cannot be read.
        """

    @abstractmethod
    def id(self, index: int) -> str:
        """The id of sample `index`, without reading its picture."""

    def inputs(self, index: int) -> Mapping[str, Any]:
        """The inputs of sample `index`. Override it if they can be had without reading the picture."""
        return self[index].inputs

    def known(self, index: int) -> Mapping[str, Any] | None:
        """The inputs of sample `index` that are available without decoding a picture or map, which are checked for
        all samples before training. None if they are not available; only some samples are then checked.

        Raises:
            InputError: `bad-file`, as `inputs`.
        """
        return None

    def base(self, index: int, name: str) -> Path | None:
        """Base folder of relative paths in the input `name` of sample `index`; None leaves the paths unchanged."""
        return None

    def content(self, index: int) -> tuple[bytes, bytes] | None:
        """Digests of the inputs and of the picture (and maps) of sample `index`, computed without decoding them and
        independent of the files' location and modification time. None if not available; a resumed run then compares
        only some samples.
        """
        return None

    def picture_size(self, index: int) -> tuple[int, int] | None:
        """(height, width) of the upright picture of sample `index`, read without decoding it; None if not available
        or if the file is damaged.
        """
        return None

    @property
    def fingerprint(self) -> str:
        """Text that changes when the data change; the key of latent caches.

        The default is a digest of `content`, which reads all files. Of a source without `content` it is one of
        `SPREAD` samples, decoded, and says how many there are: a change of others is not seen. Override it where
        file names, sizes and modification times say more cheaply what changed.
        """
        count = len(self)
        exact = bool(count) and self.content(0) is not None
        looked_at = range(count) if exact else sorted({i * count // SPREAD for i in range(SPREAD)} if count else ())
        digest = hashlib.sha256()
        for index in range(count):
            digest.update(framed(self.id(index).encode(errors="surrogatepass")))
        for index in looked_at:
            for part in self.content(index) or self._decoded(index):
                digest.update(framed(part))
        sampled = "" if len(looked_at) == count else f"{len(looked_at)} {SAMPLED} {count}: "
        return f"{sampled}{digest.hexdigest()}"

    def _decoded(self, index: int) -> tuple[bytes, bytes]:
        try:
            sample = self[index]
        except InputError as problem:
            return b"", problem.code.encode()
        return sample_bytes(sample.inputs, sample.image)


class Data(Value, ABC):
    """A source of samples, as named in a training recipe (entry-point group `ldmkit.data`)."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]
    """See `Part.examples` and `Part.api`."""

    @abstractmethod
    def open(self, folder: Path) -> Dataset:
        """Index the source; relative paths are resolved against `folder`, the recipe's folder.

        Raises:
            InputError: files are missing or invalid; the message names each.
        """

    def write_example(self, folder: Path) -> None:
        """For the contract kit: write small files into an empty folder, which this configuration then opens.

        The default writes nothing, for sources that read no files.
        """


PLAIN = "text (a picture's path or data URI), numbers, lists, boxes or maps; or data.cache: null"
"""What may be stored with cached latents, for messages."""


def plain(value: Any, where: str) -> Any:
    """An input converted to JSON data for a latent cache. Label maps are stored separately, as arrays.

    Raises:
        InputError: `not-cacheable`: it is or contains a picture, a tensor, an array ...
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
    what = f"a {type(value).__name__} cannot be stored with cached latents"
    raise InputError("not-cacheable", what, where=where, fits=PLAIN)
