"""One adapter alone in a file."""

from __future__ import annotations

from collections.abc import Mapping

from ldmkit import LazyTensor, PartSpec, SlotPart, SourceError
from ldmkit.models.source import AdapterSource
from ldmkit_checkpoints.diffusers.parts import Component
from ldmkit_checkpoints.inventory import Inventory


class AdapterFile(AdapterSource):
    """The source for a file that holds one adapter and nothing else.

    Args:
        tensors: lazy tensors by the file's keys.
        name: of the adapter.
        component: its spec and keys.
        origin: the file, for errors.
    """

    def __init__(self, tensors: Mapping[str, LazyTensor], name: str, component: Component, origin: str) -> None:
        super().__init__(origin)
        self.inventory = Inventory(tensors, self.report, origin)
        self.name, self.component = name, component

    @property
    def adapters(self) -> Mapping[str, PartSpec]:
        return {self.name: self.component.spec}

    def conditioners_of(self, adapter: str) -> Mapping[str, SlotPart]:
        return self.component.slots

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        if part != f"adapters.{self.name}":
            raise SourceError("no-part", f"there is no part {part!r}", where=self.origin, fits=f"adapters.{self.name}")
        found = self.inventory.take(part, self.component.keymap)
        self.inventory.finish()
        return found
