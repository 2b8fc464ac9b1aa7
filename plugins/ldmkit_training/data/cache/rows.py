"""Appending rows to the files of a cache that is being built."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from pydantic import Field
from torch import Tensor

from ldmkit import Dataset, InputError, Value, write_json
from ldmkit.contracts.data import plain
from ldmkit.models.digests import page_sums
from ldmkit_training.data.cache.files import (
    DEVIATION,
    DIGESTS,
    LINES,
    META,
    MODE,
    OFFSETS,
    Damaged,
    Meta,
    map_file,
    map_name,
)
from ldmkit_training.data.places import Place, replaced
from ldmkit_training.data.reading import Row
from ldmkit_training.data.sources.lying import array_places

STATE = "building.json"
SAVED_EVERY = 1024
"""Rows between two notes of how far a build has come."""


Arrays = dict[str, tuple[str, tuple[int, ...]]]
"""File -> dtype and shape of a row."""


class State(Value):
    """How far a build has come: samples done, and the length of the file of lines."""

    key: dict[str, str]
    arrays: Arrays
    done: int = Field(default=0, ge=0)
    lines: int = Field(default=0, ge=0)
    damaged: Damaged = Field(default_factory=dict)


class Chunk(NamedTuple):
    """Samples that are encoded together: for each the rows of its views, or what was wrong with it."""

    indices: tuple[int, ...]
    rows: tuple[tuple[Row, ...] | InputError, ...]


class Writer:
    """Appends samples in order, and notes now and then how far it came, so that a build can go on from there.

    Rows after the last note are written once more; arrays are appended to, so that a full disk is an error
    and nothing worse.

    Args:
        folder: of the build.
        state: how far it came already.
        views: rows a sample.
    """

    def __init__(self, folder: Path, state: State, dataset: Dataset, views: int) -> None:
        self.folder, self.state, self.dataset, self.views = folder, state, dataset, views
        self._noted = state.done
        self._places = array_places(dataset)
        self._lines = _at(folder / LINES, state.lines)
        self._files = {name: self._array(name) for name in state.arrays}

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, _kind: object, problem: object, _trace: object) -> None:
        if problem is not None and not isinstance(problem, OSError):
            self._note()
        for file in (self._lines, *self._files.values()):
            file.close()

    def add(
        self, chunk: Chunk, mode: Tensor | None, deviation: Tensor | None, digests: Sequence[np.ndarray] = ()
    ) -> None:
        """Append a chunk, given the latents and digests of its readable rows; damaged samples' rows hold zeros."""
        readable = iter(range(0 if mode is None else len(mode)))
        damaged = dict(self.state.damaged)
        for index, views in zip(chunk.indices, chunk.rows, strict=True):
            if isinstance(views, InputError):
                damaged[index] = str(views)
                views = (Row(self.dataset.id(index), None, {}, {}),) * self.views
            for row in views:
                place = None if index in damaged else next(readable)
                self._append(MODE, None if place is None or mode is None else mode[place].numpy())
                if DEVIATION in self._files:
                    self._append(DEVIATION, None if place is None or deviation is None else deviation[place].numpy())
                self._append(DIGESTS, None if place is None else digests[place])
                self._line(row)
        self.state = self.state.model_copy(
            update={"done": chunk.indices[-1] + 1, "lines": self._lines.tell(), "damaged": damaged}
        )
        if (self.state.done - self._noted) * self.views >= SAVED_EVERY:
            self._note()

    def finish(self) -> None:
        """Write what belongs to a complete cache, its description last."""
        self._note()
        lines = np.fromfile(self.folder / LINES, dtype=np.uint8)
        ends = np.flatnonzero(lines == ord("\n")) + 1
        with (self.folder / OFFSETS).open("wb") as file:
            np.save(file, np.concatenate([[0], ends]).astype(np.int64))
            _to_disk(file)
        meta = Meta(
            key=self.state.key,
            samples=len(self.dataset),
            views=self.views,
            deviation=DEVIATION in self.state.arrays,
            maps=tuple(map_name(place) for place in self._places),
            damaged=self.state.damaged,
            files={name: page_sums(self.folder / name) for name in (*self.state.arrays, LINES, OFFSETS)},
        )
        write_json(self.folder / META, meta.model_dump(mode="json"))

    def _note(self) -> None:
        for file in (self._lines, *self._files.values()):
            _to_disk(file)
        write_json(self.folder / STATE, self.state.model_dump(mode="json"))
        self._noted = self.state.done

    def _array(self, name: str) -> BinaryIO:
        dtype, shape = self.state.arrays[name]
        rows = len(self.dataset) * self.views
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": (rows, *shape),
        }
        file = _at(self.folder / name, 0, cut=False)
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + self.state.done * self.views * self._row_bytes(name))
        file.seek(0, os.SEEK_END)
        return file

    def _row_bytes(self, name: str) -> int:
        dtype, shape = self.state.arrays[name]
        return int(np.prod(shape)) * np.dtype(dtype).itemsize

    def _append(self, name: str, values: np.ndarray | None) -> None:
        if values is None:
            self._files[name].write(bytes(self._row_bytes(name)))
            return
        dtype, shape = self.state.arrays[name]
        if values.shape != tuple(shape):
            what = f"values of shape {values.shape} for {name}, the first had {tuple(shape)}"
            raise InputError("not-cacheable", what, fits="one size for all samples")
        if np.dtype(dtype).kind == "u" and values.dtype.kind == "f":
            what = f"values of {values.dtype} in {name}, the first were eight-bit"
            raise InputError("not-cacheable", what, fits="pictures of one depth")
        if np.dtype(dtype).kind == "u" and (int(values.min()) < 0 or int(values.max()) > np.iinfo(dtype).max):
            what = f"labels from {int(values.min())} to {int(values.max())} in {name}"
            raise InputError("not-cacheable", what, fits=f"labels of {dtype}")
        stored = np.ascontiguousarray(values, dtype=dtype)
        if not np.isfinite(stored).all():
            raise InputError("not-cacheable", f"latents do not fit {dtype}", where=name, fits="cache.dtype: float32")
        self._files[name].write(stored.tobytes())

    def _line(self, row: Row) -> None:
        there: dict[str, np.ndarray] = {}

        def taken(value: np.ndarray, place: Place) -> None:
            there[map_name(place)] = value

        others = replaced(row.inputs, self._places, taken)
        for name in map(map_name, self._places):
            self._append(map_file(name), there.get(name))
        plained = {n: plain(v, f"{row.id}: {n}") for n, v in others.items() if Place(n) not in self._places}
        self._lines.write(json.dumps([row.id, plained, list(there)], ensure_ascii=False).encode() + b"\n")


def _at(path: Path, length: int, cut: bool = True) -> BinaryIO:
    file = path.open("r+b" if path.exists() else "w+b")
    if cut:
        file.truncate(length)
    file.seek(length)
    return file


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
