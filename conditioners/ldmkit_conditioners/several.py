"""Inputs that are one picture or several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import WithJsonSchema
from torch import Tensor

from ldmkit import InputError
from ldmkit.bounds import MAX_BATCH

Read = Callable[..., Tensor]
"""What reads a picture or a mask: its raw form, and where it stands in a list."""


def read_several(raw: Any, read: Read, word: str) -> tuple[Tensor, ...]:
    """One picture or several, each as `read` reads it.

    Args:
        word: word for one of them in errors.

    Raises:
        InputError: `picture-*`; `picture-count`: none, or more than a batch may have.
    """
    if not isinstance(raw, list | tuple):
        return (read(raw),)
    if not 0 < len(raw) <= MAX_BATCH:
        raise InputError("picture-count", f"{len(raw)} {word}s", fits=f"one {word}, or a list of 1 to {MAX_BATCH}")
    return tuple(read(one, f"[{i}]") for i, one in enumerate(raw))


def write_several(tensors: tuple[Tensor, ...], uri: Callable[[Tensor], str]) -> Any:
    """JSON from which exactly these are read again: a data URI, or a list of them."""
    uris = [uri(tensor) for tensor in tensors]
    return uris[0] if len(uris) == 1 else uris


def schema(word: str) -> WithJsonSchema:
    """The JSON schema of one or several."""
    about = {"title": f"{word.capitalize()}s", "type": "string", "format": "picture"}
    return WithJsonSchema({**about, "description": f"a {word}, or a list"})
