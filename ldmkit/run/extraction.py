"""What the hint of a call was made of, as recipes hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import TypeAdapter

from ldmkit.contracts.extractor import Extractor
from ldmkit.contracts.rewriter import Rewriter
from ldmkit.errors import SourceError
from ldmkit.models.compose import part_spec
from ldmkit.models.updates import digest_of


@dataclass(frozen=True)
class Extraction:
    """An extractor and its parsed input, in memory of its own."""

    extractor: Extractor
    value: Any

    def written(self) -> dict[str, Any]:
        """As recipes hold it."""
        spec = part_spec("extractor", self.extractor).model_dump(mode="json", exclude_none=True)
        data = {"picture": TypeAdapter(self.extractor.Input).dump_python(self.value, mode="json"), "extract": spec}
        return {**data, "sha256": digests} if (digests := digests_of(self.extractor)) else data


def digests_of(extractor: Extractor | Rewriter) -> dict[str, str]:
    """SHA-256 of what an extractor, or a rewriter, reads, by the field that names it.

    Raises:
        SourceError: `not-found`.
    """
    named = {field: getattr(extractor, field) for field in extractor.reads}
    return {field: digest_of(located(path)) for field, path in named.items() if path is not None}


def located(path: str | Path) -> Path:
    """A file or folder that an extractor reads.

    Raises:
        SourceError: `not-found`.
    """
    found = Path(path).expanduser()
    if not found.exists():
        raise SourceError("not-found", "no such file or folder", where=str(path)[:200])
    return found


Extractions: TypeAlias = tuple[Mapping[str, Extraction], ...]
"""For each picture of a call, the inputs that were extracted, by name."""
