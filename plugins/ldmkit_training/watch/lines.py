"""JSON-lines files of records by step; resuming a run removes the records of later steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit.files.json import replacing


class Lines:
    """A file of records by step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """The records in order; a line cut off by a kill is skipped."""
        found: list[dict[str, Any]] = []
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict) and isinstance(record.get("step"), int):
                    found.append(record)
        return found

    def cut(self, step: int) -> None:
        """Remove the records after `step`, from which the run resumes."""
        if not self.path.is_file():
            return
        kept = [record for record in self.read() if record["step"] <= step]
        with replacing(self.path) as temporary:
            temporary.write_text("".join(_line(record) for record in kept), encoding="utf-8")

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a record; it has been handed to the operating system when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(record))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
