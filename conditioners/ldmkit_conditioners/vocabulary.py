"""Vocabularies: text -> token ids, warnings about what was cut, and words that are learnt later."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer

from ldmkit import InputError, shown, write_json
from ldmkit_conditioners.tokenizer_files import CONFIG


class TruncationWarning(UserWarning):
    """A prompt was longer than the model can read; the message says what was cut."""


class UnknownWordWarning(UserWarning):
    """A vocabulary of word pieces lacks a word, so the model cannot have learnt it; the message names it."""


@dataclass(frozen=True)
class Vocabulary:
    """Text -> token ids, between a start token (if there is one) and an end token.

    With `unknown`, the id for text that no piece covers, there is a warning for words that contain it or are split into
    single letters.

    Args:
        pad: padding id of its folder, if it has one.
        longest: maximum number of ids in a row, if the folder sets one.
        config: tokenizer_config.json, written beside tokenizer.json.
        several: ids of tokens that stand for several vectors of a learnt embedding -> the ids of all of them.
    """

    tokenizer: Tokenizer
    start: int | None
    end: int
    unknown: int | None = None
    pad: int | None = None
    longest: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    several: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> Vocabulary:
        return self  # nothing changes it

    def encode(self, text: str, limit: int, beyond: str = "") -> list[int]:
        """At most `limit` ids, including start and end; `beyond` says how longer texts can be read.

        A `TruncationWarning` says what was cut, an `UnknownWordWarning` which words are unknown, if any.
        """
        encoding = self._encoding(text)
        room = limit - 1 - (self.start is not None)
        if self.unknown is not None and (words := self._unknown_words(text, encoding)):
            taken = sum(count for _, count in words)
            what = f"not in the vocabulary: {_listed([word for word, _ in words])}"
            lost_on = f"; {taken} of the {room} tokens that fit go to their letters" if taken > len(words) else ""
            said = f"{what}; the model cannot know what it means{lost_on}"
            warnings.warn(said, UnknownWordWarning, stacklevel=3)
        pairs = [(id_, begin) for ids, begin in self._pieces(encoding) for id_ in ids]
        if len(pairs) > room:
            lost = text[pairs[room][1] :]
            shown = lost if len(lost) <= 60 else lost[:57] + "..."
            what = f"the prompt has {len(pairs)} tokens, {room} fit; cut: {shown!r} ({len(lost)} characters)"
            what += f"; more is read by {beyond}" if beyond else ""
            warnings.warn(what, TruncationWarning, stacklevel=3)
        return self._framed([id_ for id_, _ in pairs], limit)

    def quietly(self, text: str, limit: int) -> list[int]:
        """`encode` without warnings, for a second reader of the same text."""
        return self._framed([id_ for piece in self.pieces(text) for id_ in piece], limit)

    def pieces(self, text: str) -> list[tuple[int, ...]]:
        """The ids of each token of a text, without start and end; several if a token stands for several vectors."""
        return [ids for ids, _ in self._pieces(self._encoding(text))]

    def with_token(self, token: str, count: int) -> tuple[Vocabulary, list[int]]:
        """This vocabulary with a new token for `count` learnt vectors, and the ids of these.

        Several are named as diffusers names them: `<word>`, `<word>_1`, `<word>_2` ... Case is ignored, as
        everywhere in a prompt.

        Raises:
            InputError: `token`: not a word; `token-taken`: a text that this vocabulary already contains.
        """
        if not token or token != token.strip() or not token.isprintable():
            raise InputError("token", f"{shown(token)} cannot be a token", fits="a word such as <cat>")
        names = [token, *(f"{token}_{number}" for number in range(1, count))]
        vocab = self.tokenizer.get_vocab()
        normal = self.tokenizer.normalizer
        read = {name: name if normal is None else normal.normalize_str(name) for name in names}
        taken = next((n for n in names if n in vocab or read[n] in vocab or len(self.pieces(n)) < 2), None)
        grown = Tokenizer.from_str(self.tokenizer.to_str())
        if taken is None:
            grown.add_tokens([AddedToken(name, normalized=True) for name in names])
        ids = [grown.token_to_id(name) for name in names]
        several = several_of(grown)
        if taken is None and several != {**self.several, **({ids[0]: tuple(ids)} if count > 1 else {})}:
            taken = next(name for name in grown.get_vocab() if grown.token_to_id(name) in several)
        if taken is not None:
            what = f"{taken!r} is already in the vocabulary, so it cannot stand for {count} new vectors"
            raise InputError("token-taken", what, fits="another token, such as <my-word>")
        return replace(self, tokenizer=grown, several=several), ids

    def _framed(self, ids: Sequence[int], limit: int) -> list[int]:
        before = [] if self.start is None else [self.start]
        return [*before, *ids[: limit - 1 - len(before)], self.end]

    def _encoding(self, text: str) -> Encoding:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _pieces(self, encoding: Encoding) -> list[tuple[tuple[int, ...], int]]:
        """Per token its ids, and where in the text it begins."""
        found = zip(encoding.ids, encoding.offsets, strict=True)
        return [(self.several.get(id_, (id_,)), begin) for id_, (begin, _) in found]

    def _unknown_words(self, text: str, encoding: Encoding) -> list[tuple[str, int]]:
        """Words without pieces or with single letters as pieces, each with its number of pieces."""
        words: dict[int, list[int]] = {}
        for piece, word in enumerate(encoding.word_ids):
            if word is not None:
                words.setdefault(word, []).append(piece)
        found = []
        for pieces in words.values():
            spans = [encoding.offsets[i] for i in pieces]
            letters = len(pieces) > 1 and all(end - begin <= 1 for begin, end in spans)
            if letters or any(encoding.ids[i] == self.unknown for i in pieces):
                found.append((text[spans[0][0] : spans[-1][1]], len(pieces)))
        return found

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, and tokenizer_config.json where one is known."""
        self.tokenizer.save(str(folder / "tokenizer.json"))
        if self.config:
            write_json(folder / CONFIG, dict(self.config))


def _listed(words: Sequence[str]) -> str:
    """Distinct words, at most ten, long ones shortened."""
    once = list(dict.fromkeys(words))
    shown = [repr(word if len(word) <= 40 else word[:37] + "...") for word in once[:10]]
    return ", ".join(shown) + (f" and {len(once) - 10} more" if len(once) > 10 else "")


def no_vocabulary(part: str, files: str, where: str | None = None) -> InputError:
    """The error for text without a vocabulary, which checkpoints do not contain."""
    what = f"{part} has no vocabulary, so it cannot read text"
    fits = f"call its load_assets(folder) with a folder that contains {files}, or give token ids instead of text"
    return InputError("no-vocabulary", what, where=where, fits=fits)


def several_of(tokenizer: Tokenizer) -> dict[int, tuple[int, ...]]:
    """An embedding of several vectors is published as the tokens `<word>`, `<word>_1`, `<word>_2` ..."""
    added = {token.content: id_ for id_, token in tokenizer.get_added_tokens_decoder().items()}
    found = {}
    for token, id_ in added.items():
        parts = [id_]
        while (part := added.get(f"{token}_{len(parts)}")) is not None:
            parts.append(part)
        if len(parts) > 1:
            found[id_] = tuple(parts)
    return found
