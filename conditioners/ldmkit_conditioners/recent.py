"""A cache of recently read vocabularies: while a model is loaded, the same one is needed several times."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from ldmkit import LdmkitError, read_file

Found = TypeVar("Found")

KEPT = 3
"""Vocabularies per kind: as many as a published pipeline has tokenizers. One of CLIP takes about 20 MB."""

_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "bpe_simple_vocab_16e6.txt.gz"),
)
"""Every file that the readers below look at."""

_MAX_BYTES = 64 << 20


def recent(read: Callable[[Path, int], Found | None]) -> Callable[[Path, int], Found | None]:
    """Make a reader of vocabularies cache the last few, by the contents of their files.

    The key is the contents, not names and times, so that a rewritten file is always read again.
    """
    kept: dict[tuple[bytes, int], Found] = {}

    @wraps(read)
    def reading(folder: Path, size: int) -> Found | None:
        try:
            key = (_digest(folder), size)
        except LdmkitError:
            return read(folder, size)  # which says what is wrong with the file
        if (found := kept.get(key)) is None and (found := read(folder, size)) is not None:
            kept[key] = found
            while len(kept) > KEPT:
                kept.pop(next(iter(kept)), None)
        return found

    return reading


def _digest(folder: Path) -> bytes:
    digest = blake2b()
    for name in _FILES:
        if os.path.lexists(file := folder / name):  # a dangling link is an error, not an absent file
            data = read_file(file, _MAX_BYTES)
            digest.update(f"{name} {len(data)} ".encode() + data)
    return digest.digest()
