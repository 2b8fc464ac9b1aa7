"""Data sets of the library `datasets`: folders of `save_to_disk`, and of parquet files as they are published."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from ldmkit import Dataset, Example, Geometry, InputError, LdmkitError, Sample, SpecError, suggest
from ldmkit.files.picture_files import URI_PREFIX, picture_size
from ldmkit_training.data.identity import BLOCK, WHOLE, joined, known_bytes
from ldmkit_training.data.sources.conventions import check_columns
from ldmkit_training.data.sources.itself import png_uri
from ldmkit_training.data.sources.records import FileData, first_few, missing_notes, read_image

NUMBERED = re.compile(r"(.+)-\d{5}-of-\d{5}")
"""The name of a parquet file without its ending: its split, and its number among those of it."""


class HFData(FileData):
    """Part `hf`: a data set on this disk that the library `datasets` (which has to be installed) reads.

    Args:
        folder: what `save_to_disk` wrote, one or a dictionary of splits; or parquet files in it and below, named by
            their splits (`train-00000-of-00002.parquet`) or in folders of their names.
        split: which one; null: the only one.
        image: the column of pictures: of the feature Image, encoded bytes, or paths that start from the folder.
        columns: column -> name of the input that it is; null: all others are inputs of their names. Columns of pictures
            become pictures (hints, masks); numbers of classes keep their names.
        choose, boxes: as in `folder`.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example({"folder": "saved"}),)

    folder: str = Field(min_length=1)
    split: str | None = None
    image: str = "image"
    columns: dict[str, str] | None = None
    choose: tuple[str, ...] = ("text", "caption")
    boxes: tuple[str, ...] = ("layout",)

    @model_validator(mode="after")
    def _consistent(self) -> HFData:
        check_columns(self.columns)
        return self

    def open(self, folder: Path) -> HFDataset:
        root = folder / self.folder
        self._library()
        if not root.is_dir():
            raise InputError("not-found", "there is no such folder", where=str(root), fits="a folder of a data set")
        table = self._opened(root)
        known = table.column_names
        for column in (self.image, *(self.columns or ())):
            if column not in known:
                what = f"the data set has no column {column!r}"
                raise InputError("no-column", what, where=str(root), fits=suggest(column, known))
        others = {name: name for name in known if name != self.image} if self.columns is None else self.columns
        return HFDataset(self, table, root, others)

    def _library(self) -> None:
        if find_spec("datasets") is None:
            what = "the part 'hf' reads with the library datasets, which is not installed"
            raise SpecError("library-missing", what, where="data", fits="pip install datasets; or a folder or table")

    def _opened(self, root: Path) -> Any:
        import datasets

        try:
            if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
                found = datasets.load_from_disk(str(root))
                if not isinstance(found, datasets.DatasetDict):
                    self._only(["the only one"] if self.split is None else [], root)
                    return found
                return found[self._only(list(found), root)]
            files = self._files(root)
            return datasets.Dataset.from_parquet([str(path) for path in files[self._only(list(files), root)]])
        except LdmkitError:
            raise
        except (OSError, ValueError, TypeError, datasets.exceptions.DatasetsError) as problem:
            what = f"the library datasets cannot read it: {type(problem).__name__}: {problem}"
            raise InputError("bad-file", what, where=str(root)) from problem

    def _files(self, root: Path) -> dict[str, list[Path]]:
        """Split -> its parquet files.

        Raises:
            InputError: `no-samples`; `split`: one whose files lie in several folders (of several configurations).
        """
        found: dict[str, list[Path]] = {}
        for path in sorted(root.rglob("*.parquet")):
            numbered, above = NUMBERED.fullmatch(path.stem), path.parent.name
            named = above if path.parent != root and above != "data" else path.stem
            found.setdefault(numbered[1] if numbered else named, []).append(path)
        if not found:
            fits = "what save_to_disk wrote, or parquet files; a folder of pictures is a `folder`"
            raise InputError("no-samples", "no data set of the library datasets", where=str(root), fits=fits)
        for split, paths in found.items():
            if len(folders := sorted({path.parent.relative_to(root).as_posix() for path in paths})) > 1:
                what = f"the files of the split {split!r} lie in several folders: {first_few(folders)}"
                raise InputError("split", what, where=str(root), fits=f"folder: {self.folder}/{folders[0]}, say")
        return found

    def _only(self, splits: Sequence[str], root: Path) -> str:
        if self.split is None and len(splits) == 1:
            return splits[0]
        if self.split in splits and self.split is not None:
            return self.split
        what = "which split is to be read is not said" if self.split is None else f"there is no split {self.split!r}"
        fits = f"split: {' | '.join(splits)}" if splits else "split: null, since it has none"
        raise InputError("split", what, where=str(root), fits=fits)

    def write_example(self, folder: Path) -> None:
        self._library()
        import datasets
        from PIL import Image

        rows = {"image": [Image.new("RGB", (12, 8), (60 * n, 90, 30)) for n in range(3)], "text": ["a", "b", "c"]}
        datasets.Dataset.from_dict(rows).save_to_disk(str(folder / self.folder))


class HFDataset(Dataset):
    """Rows of a table; ids are their numbers.

    Args:
        table: a `datasets.Dataset`.
        names: column -> input.
    """

    def __init__(self, config: HFData, table: Any, root: Path, names: Mapping[str, str]) -> None:
        import datasets

        self.config, self.root, self.names = config, root, dict(names)
        pictures = [name for name in table.column_names if isinstance(table.features[name], datasets.Image)]
        for name in pictures:
            table = table.cast_column(name, datasets.Image(decode=False))
        self._pictures = [name for name in pictures if name in names]
        self._table = table.select_columns([config.image, *names])
        self._plain = table.select_columns([name for name in names if name not in self._pictures])
        self.geometry: Mapping[str, Geometry] = {
            new: "boxes" if new in config.boxes else "none" for new in self.names.values()
        }
        self.choices = frozenset(config.choose) & self.geometry.keys()
        labels = {new: table.features[name] for name, new in self.names.items()}
        self.numbering = {
            new: tuple(kind.names) for new, kind in labels.items() if isinstance(kind, datasets.ClassLabel)
        }
        self.notes = tuple(self._lacking())

    def _lacking(self) -> list[str]:
        said: list[str] = []
        for name in self._plain.column_names:
            without = [str(i) for i, value in enumerate(self._plain[name]) if value is None]
            said += missing_notes(without, f"row(s) have no {name!r}", self.config.missing, str(self.root))
        return said

    def __len__(self) -> int:
        return len(self._table)

    def id(self, index: int) -> str:
        return f"{index}"

    def __getitem__(self, index: int) -> Sample:
        row = self._table[index]
        source, where = self._picture(row[self.config.image], index, self.config.image)
        image = read_image(source, where, self.config.background)
        return Sample(self.id(index), image, self._inputs(row, index))

    def inputs(self, index: int) -> Mapping[str, Any]:
        return self._inputs(self._table[index], index)

    def known(self, index: int) -> Mapping[str, Any]:
        return self._inputs(self._plain[index], index)

    def base(self, index: int, name: str) -> Path | None:
        return self.root

    def picture_size(self, index: int) -> tuple[int, int] | None:
        try:
            return picture_size(self._picture(self._table[index][self.config.image], index, self.config.image)[0])
        except InputError:
            return None

    def content(self, index: int) -> tuple[bytes, bytes]:
        row, files = self._table[index], [f"{self.config.background}".encode()]
        for name in (self.config.image, *self._pictures):
            if row[name] is not None:
                source, _ = self._picture(row[name], index, name)
                files.append(_sampled(source if isinstance(source, bytes) else source.read_bytes()))
        return known_bytes(self.known(index)), joined(files)

    @property
    def fingerprint(self) -> str:
        # the library's own, of the tables as they were changed: by content of what is on the disk
        text = f"{self._table._fingerprint} {self.config.model_dump_json()}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _inputs(self, row: Mapping[str, Any], index: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, new in self.names.items():
            if row.get(name) is None:
                continue
            found[new] = self._uri(row[name], index, name) if name in self._pictures else _unarrayed(row[name])
        return found

    def _picture(self, value: Any, index: int, column: str) -> tuple[bytes | Path, str]:
        """A cell's encoded picture or its file, and what errors call it.

        Raises:
            InputError: `bad-file`: it is neither.
        """
        where = f"{self.root}: row {index}, {column!r}"
        if isinstance(value, Mapping) and {"bytes", "path"} & value.keys():
            value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
        if isinstance(value, bytes):
            return value, where
        if isinstance(value, str) and value:
            path = self.root / value
            if path.is_file():
                return path, f"{where} ({path})"
            raise InputError("bad-file", f"there is no file {value!r}", where=where, fits=f"a path from {self.root}")
        what = f"a {type(value).__name__} is no encoded picture and no path"
        raise InputError("bad-file", what, where=where, fits="the feature Image, bytes or a path")

    def _uri(self, value: Any, index: int, column: str) -> str:
        """A picture as an input: its file, or itself, which loses nothing."""
        source, where = self._picture(value, index, column)
        if isinstance(source, Path):
            return str(source)
        if source.startswith(b"\x89PNG"):
            return URI_PREFIX + base64.b64encode(source).decode()
        return png_uri(read_image(source, where, self.config.background))


def _sampled(data: bytes) -> bytes:
    """What stands for a picture's bytes: all of a small one, of others the size and three blocks."""
    if len(data) <= WHOLE:
        return data
    blocks = [data[at : at + BLOCK] for at in (0, len(data) // 2, len(data) - BLOCK)]
    return b"\n".join([str(len(data)).encode(), *blocks])


def _unarrayed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
