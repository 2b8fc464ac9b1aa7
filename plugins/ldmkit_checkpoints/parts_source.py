"""A pipeline whose parts are read from several files, each of which may hold tensors of several parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ldmkit import LazyTensor, PipelineSpec, Source
from ldmkit_checkpoints.inventory import Inventory
from ldmkit_checkpoints.keys import KeyMap


def nothing(key: str) -> str | None:
    """No key may be left out."""
    return None


class Piece(NamedTuple):
    """Tensors of a part in one file.

    Args:
        file: name of the file, for `PartsSource.opened`.
        keymap: native key -> published keys.
        ignorable: why a key that no part reads may be left out; None: it may not.
    """

    file: str
    keymap: KeyMap
    ignorable: Callable[[str], str | None] = nothing


class PartsSource(Source):
    """A pipeline by its spec and the pieces of its parts.

    Args:
        pieces: path of a part -> where its tensors are.
        tensors_of: the tensors of a file by published key; called when a part is read.
        folders: path of a part -> folder with its other files.
    """

    def __init__(
        self,
        origin: str,
        spec: PipelineSpec,
        pieces: Mapping[str, Sequence[Piece]],
        tensors_of: Callable[[str], Mapping[str, LazyTensor]],
        folders: Mapping[str, Path],
    ) -> None:
        super().__init__(origin)
        self._spec, self._pieces, self._tensors_of, self._folders = spec, pieces, tensors_of, folders
        self._taken: dict[str, dict[str, dict[str, LazyTensor]]] = {}

    @property
    def spec(self) -> PipelineSpec:
        return self._spec

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        """The part's tensors; all keys of its files must be accounted for.

        Raises:
            WeightsError: missing, unexpected.
        """
        found: dict[str, LazyTensor] = {}
        for piece in self._pieces.get(part, ()):
            found |= self._file(piece.file)[part]
        return found

    def assets(self, part: str) -> Path | None:
        return self._folders.get(part)

    def _file(self, name: str) -> dict[str, dict[str, LazyTensor]]:
        """Part -> its tensors in a file."""
        if name not in self._taken:
            inventory = Inventory(self._tensors_of(name), self.report, f"{self.origin}/{name}", f"{name}:")
            taken: dict[str, dict[str, LazyTensor]] = {}
            for part, pieces in self._pieces.items():
                for piece in (one for one in pieces if one.file == name):
                    taken.setdefault(part, {}).update(inventory.take(part, piece.keymap))
                    inventory.ignore_if(piece.ignorable)
            inventory.finish()
            self._taken[name] = taken
        return self._taken[name]
