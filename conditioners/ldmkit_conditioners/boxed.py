"""Reading of layouts, shared by the conditioners without crops."""

from __future__ import annotations

from typing import Any, ClassVar

from ldmkit import Conditioner
from ldmkit_conditioners.layout import Layout, check_layout


class Boxed(Conditioner):
    """Reads a layout; its config has `n_classes`, `names` and `max_objects`."""

    Input: ClassVar[Any] = Layout

    def parse(self, raw: Any, where: str) -> Layout:
        layout = Layout.read(raw, where)
        self.check(layout, where)
        return layout

    def example(self, size: tuple[int, int]) -> Layout:
        return Layout()

    def check(self, layout: Layout, where: str = "layout") -> None:
        """Raises InputError: see `check_layout`."""
        check_layout(layout, self.config.n_classes, self.config.names, self.config.max_objects, where)
