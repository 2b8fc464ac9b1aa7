"""A file of captions beside a data set: JSON lines, one per picture, that grow and can be gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ldmkit import Captions, InputError, write_json

PICTURE = "file_name"
"""The key of a picture's path, as the source `table` reads it by default."""


class CaptionFile:
    """Captions of one captioner, and beside the file a record of which (`NAME.record.json`).

    Args:
        path: of the JSON lines.
        captioner: the captioner as its record holds it.

    Raises:
        InputError: `other-captioner`: the file was begun by another; `no-record`: nothing says by which; `bad-file`.
    """

    def __init__(self, path: Path, captioner: Mapping[str, Any], overwrite: bool = False) -> None:
        self.path, self.record = path, path.with_suffix(".record.json")
        if overwrite:
            path.unlink(missing_ok=True)
            self.record.unlink(missing_ok=True)
        self.done = self._begun(captioner) if path.exists() else set()
        self._captioner = dict(captioner)
        write_json(self.record, {"captioner": self._captioner, "captions": len(self.done)})

    def add(self, picture: str, captions: Captions, **more: str) -> None:
        """Write the captions of one picture, whole and at once."""
        line = json.dumps({PICTURE: picture, **captions._asdict(), **more}, ensure_ascii=False)
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(line + "\n")
        self.done.add(picture)

    def finish(self) -> None:
        """Record how many captions there are."""
        write_json(self.record, {"captioner": self._captioner, "captions": len(self.done)})

    def _begun(self, captioner: Mapping[str, Any]) -> set[str]:
        where = str(self.path)
        if not self.record.is_file():
            fits = "--overwrite, or another --out"
            raise InputError(
                "no-record", f"{self.record.name} beside it does not say who wrote it", where=where, fits=fits
            )
        known = json.loads(self.record.read_text(encoding="utf-8")).get("captioner")
        if known != dict(captioner):
            what = f"it was begun by another captioner: {json.dumps(known)[:300]}"
            raise InputError(
                "other-captioner", what, where=where, fits="the same captioner, --overwrite, or another --out"
            )
        return set(self._whole_lines())

    def _whole_lines(self) -> Iterator[str]:
        """Pictures of the lines; a last line that was cut off as it was written is removed."""
        text = self.path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            self.path.write_bytes(whole)
        for number, line in enumerate(whole.decode("utf-8").splitlines(), 1):
            try:
                yield str(json.loads(line)[PICTURE])
            except (ValueError, KeyError, TypeError):
                fits = "JSON lines as this command writes them; --overwrite"
                raise InputError(
                    "bad-file", f"line {number} is none of captions", where=str(self.path), fits=fits
                ) from None
