"""What the hint of a call was made of, as recipes hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import TypeAdapter

from ldmkit.contracts.extractor import Extractor
from ldmkit.models.compose import part_spec


@dataclass(frozen=True)
class Extraction:
    """An extractor and its parsed input, in memory of its own."""

    extractor: Extractor
    value: Any

    def written(self) -> dict[str, Any]:
        """As recipes hold it."""
        spec = part_spec("extractor", self.extractor).model_dump(mode="json", exclude_none=True)
        return {"picture": TypeAdapter(self.extractor.Input).dump_python(self.value, mode="json"), "extract": spec}


Extractions: TypeAlias = tuple[Mapping[str, Extraction], ...]
"""For each picture of a call, the inputs that were extracted, by name."""
