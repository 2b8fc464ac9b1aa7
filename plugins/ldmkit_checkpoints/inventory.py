"""Accounts for every key of a checkpoint: used by a part, ignored for a stated reason, or an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from ldmkit import LazyTensor, WeightsError
from ldmkit.models.source import LoadReport
from ldmkit.printable import first_few
from ldmkit_checkpoints.keys import Conversion, KeyMap, renamed


class Inventory:
    """The tensors of one checkpoint, and what each was used for.

    Args:
        tensors: tensors by published key.
        report: filled in as parts take their tensors.
        where: the file, for errors.
        label: prefix of the keys in the report, for sources with several files.
    """

    def __init__(self, tensors: Mapping[str, LazyTensor], report: LoadReport, where: str, label: str = "") -> None:
        self.tensors = tensors
        self.report = report
        self.where = where
        self.label = label

    def has(self, prefix: str) -> bool:
        """Whether any key begins with `prefix`."""
        return any(key.startswith(prefix) for key in self.tensors)

    def take(self, part: str, keymap: KeyMap, rename: Callable[[str], str] = str) -> dict[str, LazyTensor]:
        """Return the part's tensors under native keys, and mark them as used.

        Args:
            keymap: native key -> published keys and conversion.
            rename: maps a published key to the key used in this file.

        Raises:
            WeightsError: `missing` naming the file's keys; `wrong-shape` where a shape cannot be converted.
        """
        renamed = {native: tuple(map(rename, entry.keys)) for native, entry in keymap.items()}
        absent = [key for keys in renamed.values() for key in keys if key not in self.tensors]
        if absent:
            what = f"{len(absent)} tensor(s) of the {part} are missing: {first_few(absent)}"
            raise WeightsError("missing", what, where=self.where)
        found = {}
        for native, entry in keymap.items():
            keys = renamed[native]
            found[native] = convert(entry, [self.tensors[key] for key in keys], keys, self.where)
            for key in keys:
                self.report.used[self.label + key] = part
        return found

    def ignore(self, keys: Iterable[str], reason: str) -> None:
        """Leave keys unread and record the reason in the report."""
        for key in keys:
            if key in self.tensors:
                self.report.ignored[self.label + key] = reason

    def ignore_if(self, judge: Callable[[str], str | None]) -> None:
        """Ignore each remaining key for which `judge` returns a reason."""
        for key in self.left():
            if (reason := judge(key)) is not None:
                self.report.ignored[self.label + key] = reason

    def left(self) -> list[str]:
        """Keys that are neither used nor ignored."""
        done = self.report.used.keys() | self.report.ignored.keys()
        return [key for key in self.tensors if self.label + key not in done]

    def finish(self) -> None:
        """Check that every key is accounted for.

        Raises:
            WeightsError: `unexpected`, naming the remaining keys.
        """
        left = self.left()
        if left:
            what = f"{len(left)} tensor(s) do not belong to the model that the config describes: {first_few(left)}"
            raise WeightsError("unexpected", what, where=self.where)


def convert(entry: Conversion, sources: list[LazyTensor], keys: tuple[str, ...], where: str) -> LazyTensor:
    """A lazy native tensor, converted from published tensors when read; its shape is computed without reading data.

    Raises:
        WeightsError: the published shapes cannot be converted.
    """
    if entry.read is renamed("").read and len(sources) == 1:
        return sources[0]
    try:
        meta = entry.read(*(torch.empty(s.shape, dtype=s.dtype, device="meta") for s in sources))
    except (RuntimeError, TypeError, ValueError, IndexError):
        shapes = " and ".join(f"{key!r} {list(s.shape)}" for key, s in zip(keys[:3], sources, strict=False))
        raise WeightsError("wrong-shape", f"shapes that cannot be converted: {shapes}", where=where) from None

    def read(copy: bool) -> Tensor:
        return entry.read(*(source.read(copy) for source in sources))

    return LazyTensor(tuple(meta.shape), meta.dtype, read)
