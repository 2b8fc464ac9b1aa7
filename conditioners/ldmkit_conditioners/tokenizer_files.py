"""What a tokenizer's folder says in addition to its vocabulary: special tokens, added tokens, the longest input.

Published in three forms, which transformers reads in the same way: `tokenizer_config.json` with `added_tokens_decoder`;
`special_tokens_map.json` with `added_tokens.json` (before its version 4.34); the `added_tokens` of `tokenizer.json`.
A special token is a string, or an object with `content` and how it is matched (`lstrip`, `rstrip`, `single_word`,
`normalized`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from ldmkit import SourceError, read_json

CONFIG = "tokenizer_config.json"
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
UNBOUNDED = 1 << 31
"""Lengths from here on mean "no limit": transformers writes 1e30 for it."""

MAX_ID = 1 << 22
"""More than ten times what the largest vocabulary has."""

_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
_SIDES = {"padding_side": "right", "truncation_side": "right", "split_special_tokens": False}


@dataclass(frozen=True)
class Stated:
    """What a folder says.

    Args:
        where: the folder, for errors.
        config: `tokenizer_config.json`; None where there is no such file.
        special: `bos_token`, `eos_token` ... -> the token; None where the folder says that there is none.
        tokens: tokens that are matched in a text before it is split, in the order in which they get their ids.
        ids: the id that a file gives to a token.
        assumed: tokens that only the tokenizer's class names; those that the vocabulary lacks get no id, since no
            model would know them.
    """

    where: str
    config: Mapping[str, Any] | None
    special: dict[str, str | None]
    tokens: list[AddedToken] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    assumed: frozenset[str] = frozenset()

    @property
    def limit(self) -> int | None:
        """Maximum number of ids in a row; None if the folder sets no limit."""
        value = (self.config or {}).get("model_max_length", (self.config or {}).get("max_len"))
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 2:
            what = f"model_max_length is {value!r}"
            raise SourceError("bad-vocabulary", what, where=f"{self.where}/{CONFIG}", fits="a number above 2")
        return None if value >= UNBOUNDED else int(value)

    @property
    def as_written(self) -> bool:
        """Whether tokenizer.json is complete: there is no config beside it, or one of a generic tokenizer."""
        names = ("PreTrainedTokenizerFast", "TokenizersBackend")
        return self.config is None or self.config.get("tokenizer_class") in names

    def add_to(self, tokenizer: Tokenizer) -> dict[str, int]:
        """Add all tokens, and return the ids of the special ones by name (`bos`, `eos`, `pad` ...).

        Raises:
            SourceError: a token does not get the id that a file states for it.
        """
        known = tokenizer.get_vocab()
        tokenizer.add_tokens([t for t in self.tokens if t.content in known or t.content not in self.assumed])
        for token, stated in self.ids.items():
            if (got := tokenizer.token_to_id(token)) != stated:
                what = f"the added token {token!r} is said to have id {stated}; by the vocabulary it is {got}"
                raise SourceError(
                    "bad-vocabulary", what, where=self.where, fits="added tokens without gaps in their ids"
                )
        found = {name: tokenizer.token_to_id(token) for name, token in self.special.items() if token is not None}
        return {name.removesuffix("_token"): id_ for name, id_ in found.items() if id_ is not None}


def read_stated(folder: Path, defaults: Mapping[str, str]) -> Stated:
    """The special and added tokens of a folder; `defaults` names those of its class that the folder does not name.

    Raises:
        SourceError: damaged files; padding or truncation on the left, special tokens that are split.
    """
    config = _object(folder / CONFIG)
    given = dict(config or {})
    for key, fits in _SIDES.items():
        if given.get(key, fits) != fits:
            what = f"{key} is {given[key]!r}"
            raise SourceError("unknown-parameter", what, where=f"{folder / CONFIG}: {key}", fits=repr(fits))
    added: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in given:
        for index, token in _mapping(given["added_tokens_decoder"], folder / CONFIG).items():
            added[_id(index, folder / CONFIG)] = _token(token, folder / CONFIG)
    else:
        for key, value in (_object(folder / "special_tokens_map.json") or {}).items():
            given[key] = value
        named = {_content(value) for _, value in _named(given)} | {_content(value) for value in _extra(given)}
        for content, index in (_object(folder / "added_tokens.json") or {}).items():
            special = content in named
            token = AddedToken(content, normalized=not special, special=special)
            added[_id(index, folder / "added_tokens.json")] = token
        for entry in (_object(folder / "tokenizer.json") or {}).get("added_tokens") or []:
            added[_id(entry.get("id"), folder / "tokenizer.json")] = _token(entry, folder / "tokenizer.json")
    special = {**defaults, **{key: _content(value) for key, value in _named(given)}}
    tokens = [added[index] for index in sorted(added)]
    ids = {token.content: index for index, token in added.items()}
    for value in (*(dict(defaults) | dict(_named(given))).values(), *_extra(given)):
        if value is not None and _content(value) not in {token.content for token in tokens}:
            tokens.append(_token(value, folder / CONFIG))
    for token in tokens:
        if token.content in special.values():
            token.special = True
    assumed = set(defaults.values()) - {_content(value) for _, value in _named(given)} - ids.keys()
    return Stated(str(folder), config, special, tokens, ids, frozenset(assumed))


def _named(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The special tokens of a config by name, in transformers' order, then those with other names."""
    for key in SPECIAL:
        if key in config:
            yield key, config[key]
    more = config.get("extra_special_tokens")
    if isinstance(more, Mapping):
        yield from more.items()


def _extra(config: Mapping[str, Any]) -> list[Any]:
    listed = config.get("extra_special_tokens") or config.get("additional_special_tokens")
    return list(listed) if isinstance(listed, (list, tuple)) else []


def _content(value: Any) -> str | None:
    content = value.get("content") if isinstance(value, Mapping) else value
    return content if isinstance(content, str) else None


def _token(value: Any, file: Path) -> AddedToken:
    content = _content(value)
    if not content:
        raise SourceError("bad-vocabulary", f"{str(value)[:60]!r} is not a token", where=str(file))
    if isinstance(value, str):
        return AddedToken(content, special=True)
    flags = {key: value[key] for key in _FLAGS if key in value}
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise SourceError(
            "bad-vocabulary", f"the flags of {content!r} are {flags}", where=str(file), fits="true or false"
        )
    return AddedToken(content, **flags)


def _id(value: Any, file: Path) -> int:
    try:
        number = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else -1
    except ValueError:
        number = -1
    if number < 0:
        raise SourceError("bad-vocabulary", f"{str(value)[:60]!r} is not a token id", where=str(file))
    check_largest([number], file)
    return number


def check_largest(ids: Iterable[int], file: Path) -> None:
    """Refuse ids beyond any vocabulary, because the tokenizers package makes an entry for each id below the largest.

    Raises:
        SourceError: `bad-vocabulary`.
    """
    if (largest := max(ids, default=0)) > MAX_ID:
        raise SourceError("bad-vocabulary", f"it has id {largest}", where=str(file), fits=f"ids up to {MAX_ID}")


def _object(file: Path) -> dict[str, Any] | None:
    return _mapping(read_json(file), file) if os.path.lexists(file) else None


def _mapping(data: Any, file: Path) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise SourceError("bad-vocabulary", "not an object", where=str(file))
    return data
