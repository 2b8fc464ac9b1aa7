"""Prompts: the input type of the text conditioners, and rows of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

import torch
from pydantic import PlainValidator, WithJsonSchema
from torch import Tensor

from ldmkit import InputError

MAX_CHARACTERS = 1_000_000


def read_prompt(raw: Any) -> str | list[int]:
    """A prompt as text or as token ids.

    Raises:
        InputError: NUL or lone surrogates in the text, a length beyond the limit, ids that are not integers >= 0.
    """
    if isinstance(raw, str):
        return _checked(raw)
    if isinstance(raw, (list, tuple)) and all(isinstance(i, int) and not isinstance(i, bool) for i in raw):
        if any(i < 0 for i in raw):
            raise InputError("token-range", f"token id {min(raw)} is negative", fits="ids >= 0")
        return list(raw)
    shown = (
        f"a {type(raw).__name__}" if not isinstance(raw, (list, tuple)) else "a list with values other than integers"
    )
    raise InputError("prompt-type", f"{shown} is no prompt", fits="text, or a list of token ids")


def _checked(text: str) -> str:
    if "\0" in text:
        raise InputError("prompt-nul", f"NUL at character {text.index(chr(0))}", fits="text without NUL")
    if len(text) > MAX_CHARACTERS:
        raise InputError("prompt-too-long", f"{len(text)} characters", fits=f"at most {MAX_CHARACTERS}")
    try:
        text.encode()
    except UnicodeEncodeError as failure:
        raise InputError(
            "prompt-unicode", f"a lone surrogate at character {failure.start}", fits="valid Unicode"
        ) from None
    return text


Prompt: TypeAlias = Annotated[
    str | list[int],
    PlainValidator(read_prompt),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}}],
            "title": "Prompt",
            "description": "text, or the complete sequence of token ids",
        }
    ),
]
"""Pydantic type of a prompt: text, or token ids including the start and end tokens."""


def check_ids(ids: Sequence[int], limit: int, vocab_size: int, where: str | None = None) -> None:
    """Refuse ids that a text encoder cannot read; they are never cut or wrapped.

    Raises:
        InputError: none, more than `limit`, or one that is not below `vocab_size`.
    """
    if not 0 < len(ids) <= limit:
        raise InputError("token-count", f"{len(ids)} token ids", where=where, fits=f"1 to {limit}")
    worst = max(ids)
    if worst >= vocab_size:
        raise InputError("token-range", f"token id {worst}", where=where, fits=f"0 to {vocab_size - 1}")


def padded_rows(rows: Sequence[Sequence[int]], length: int, pad: int, device: torch.device) -> Tensor:
    """(B, length) int64, each row filled up with `pad`."""
    return torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows], dtype=torch.long, device=device)
