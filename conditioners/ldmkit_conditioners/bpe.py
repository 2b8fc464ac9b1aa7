"""Vocabularies: CLIP's byte-pair encoding and BERT's uncased word pieces, on the `tokenizers` package.

Same ids as transformers' CLIPTokenizer and BertTokenizer, without importing transformers.
"""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from tokenizers import AddedToken, Encoding, Regex, Tokenizer, models, normalizers, pre_tokenizers

from ldmkit.errors import InputError, SourceError
from ldmkit.jsonio import read_json, write_json

CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
CLIP_FILES = "tokenizer.json, vocab.json with merges.txt, or bpe_simple_vocab_16e6.txt.gz"
BERT_FILES = "tokenizer.json or vocab.txt (of bert-base-uncased)"

_GZ_NAME = "bpe_simple_vocab_16e6.txt.gz"
_GZ_MERGES = 49152 - 256 - 2
_MAX_FILE = 64 << 20
_CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

Merges: TypeAlias = list[tuple[str, str]]


class TruncationWarning(UserWarning):
    """A prompt was longer than the model can read; the message says what was cut."""


class UnknownWordWarning(UserWarning):
    """A vocabulary of word pieces does not know a word, so a model cannot have learnt it; the message names it."""


@dataclass(frozen=True)
class Vocabulary:
    """Text -> token ids, between a start token (if there is one) and an end token.

    With `unknown`, the id of what no piece covers, a word that has it or falls apart into letters is warned of.
    """

    tokenizer: Tokenizer
    start: int | None
    end: int
    unknown: int | None = None

    def encode(self, text: str, limit: int) -> list[int]:
        """At most `limit` ids, start and end included.

        A `TruncationWarning` says what was cut, an `UnknownWordWarning` which words are unknown, if any.
        """
        encoding = self._encoding(text)
        if self.unknown is not None and (words := self._unknown_words(text, encoding)):
            what = f"not in the vocabulary: {_listed(words)}"
            warnings.warn(f"{what}; the model cannot know what that means", UnknownWordWarning, stacklevel=3)
        room = limit - 1 - (self.start is not None)
        if len(encoding.ids) > room:
            lost = text[encoding.offsets[room][0] :]
            shown = lost if len(lost) <= 60 else lost[:57] + "..."
            what = f"the prompt has {len(encoding.ids)} tokens, {room} fit; cut: {shown!r} ({len(lost)} characters)"
            warnings.warn(what, TruncationWarning, stacklevel=3)
        return self._framed(encoding.ids, limit)

    def quietly(self, text: str, limit: int) -> list[int]:
        """The ids of `encode`, for a second reader of the same text: without the warnings."""
        return self._framed(self._encoding(text).ids, limit)

    def _framed(self, ids: Sequence[int], limit: int) -> list[int]:
        before = [] if self.start is None else [self.start]
        return [*before, *ids[: limit - 1 - len(before)], self.end]

    def _encoding(self, text: str) -> Encoding:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _unknown_words(self, text: str, encoding: Encoding) -> list[str]:
        """Words that have no piece, or nothing but single letters for pieces."""
        words: dict[int, list[int]] = {}
        for piece, word in enumerate(encoding.word_ids):
            if word is not None:
                words.setdefault(word, []).append(piece)
        found = []
        for pieces in words.values():
            spans = [encoding.offsets[i] for i in pieces]
            letters = len(pieces) > 1 and all(end - begin <= 1 for begin, end in spans)
            if letters or any(encoding.ids[i] == self.unknown for i in pieces):
                found.append(text[spans[0][0] : spans[-1][1]])
        return found

    def save(self, folder: Path) -> None:
        """Write tokenizer.json."""
        self.tokenizer.save(str(folder / "tokenizer.json"))


def _listed(words: Sequence[str]) -> str:
    """Each word once, the first ten of them, long ones cut."""
    once = list(dict.fromkeys(words))
    shown = [repr(word if len(word) <= 40 else word[:37] + "...") for word in once[:10]]
    return ", ".join(shown) + (f" and {len(once) - 10} more" if len(once) > 10 else "")


def no_vocabulary(part: str, files: str, where: str | None = None) -> InputError:
    """The error for text where a part has only weights: checkpoints carry no vocabulary."""
    what = f"{part} has no vocabulary, so it cannot read text"
    fits = f"call its load_assets(folder) with a folder that holds {files}; or give token ids instead of text"
    return InputError("no-vocabulary", what, where=where, fits=fits)


def clip_vocabulary(folder: Path, size: int) -> Vocabulary | None:
    """CLIP's vocabulary from the files in a folder, None where there are none.

    Args:
        size: rows of the embedding that the ids will index.

    Raises:
        SourceError: damaged files, or ids that exceed `size`.
    """
    if (file := folder / "tokenizer.json").is_file():
        tokenizer = _from_json(file)
    elif (file := folder / "vocab.json").is_file():
        tokenizer = _clip(_clip_ids(file), _merges(folder / "merges.txt"), _special_pad(folder), file)
    elif (file := folder / _GZ_NAME).is_file():
        merges = _original_merges(file)
        tokenizer = _clip(_original_ids(merges), merges, None, file)
    else:
        return None
    return _vocabulary(tokenizer, CLIP_START, CLIP_END, size, file)


def bert_vocabulary(folder: Path, size: int) -> Vocabulary | None:
    """BERT's uncased word pieces from the files in a folder, None where there are none; errors as above."""
    if (file := folder / "tokenizer.json").is_file():
        tokenizer = _from_json(file)
    elif (file := folder / "vocab.txt").is_file():
        ids = {line: i for i, line in enumerate(_text(file).split("\n")) if line}
        for needed in ("[PAD]", "[UNK]", "[CLS]", "[SEP]"):
            if needed not in ids:
                raise SourceError("bad-vocabulary", f"{needed} is not in the list", where=str(file))
        tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        known = [t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in ids]
        tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in known])
    else:
        return None
    return replace(_vocabulary(tokenizer, "[CLS]", "[SEP]", size, file), unknown=tokenizer.token_to_id("[UNK]"))


def sentence_pieces(folder: Path, size: int, end: int) -> Vocabulary | None:
    """T5's sentence pieces from tokenizer.json, or from spiece.model through transformers; None where neither is."""
    if (file := folder / "tokenizer.json").is_file():
        tokenizer = _from_json(file)
    elif (file := folder / "spiece.model").is_file():
        try:
            from transformers import T5TokenizerFast

            tokenizer = T5TokenizerFast.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
        except Exception as failure:
            raise SourceError("bad-vocabulary", f"not a sentence-piece model: {failure}", where=str(file)) from None
    else:
        return None
    _check_size(tokenizer, size, file)
    return Vocabulary(tokenizer, None, end)


def write_clip_files(vocabulary: Vocabulary, folder: Path, pad: int, limit: int = 77) -> None:
    """vocab.json, merges.txt and the configs that diffusers and transformers read, in an existing folder."""
    data = json.loads(vocabulary.tokenizer.to_str())["model"]
    write_json(folder / "vocab.json", data["vocab"])
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in data["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    pad_token = vocabulary.tokenizer.id_to_token(pad)
    special = {"bos_token": CLIP_START, "eos_token": CLIP_END, "unk_token": CLIP_END, "pad_token": pad_token}
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json", {**special, "model_max_length": limit, "tokenizer_class": "CLIPTokenizer"}
    )


def _clip(ids: Mapping[str, int], merges: Merges, pad: str | None, file: Path) -> Tokenizer:
    try:
        model = models.BPE(
            dict(ids), merges, unk_token=CLIP_END, continuing_subword_prefix="", end_of_word_suffix="</w>"
        )
    except Exception as failure:
        raise SourceError("bad-vocabulary", f"not a byte-pair vocabulary: {failure}", where=str(file)) from None
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    special = dict.fromkeys([CLIP_START, CLIP_END, *([pad] if pad in ids else [])])
    tokenizer.add_special_tokens(
        [AddedToken(str(token), normalized=False, special=True) for token in special if token in ids]
    )
    return tokenizer


def _vocabulary(tokenizer: Tokenizer, start: str, end: str, size: int, file: Path) -> Vocabulary:
    ends = tokenizer.token_to_id(start), tokenizer.token_to_id(end)
    if None in ends:
        raise SourceError("bad-vocabulary", f"{start} or {end} is not in the vocabulary", where=str(file))
    _check_size(tokenizer, size, file)
    return Vocabulary(tokenizer, *ends)


def _check_size(tokenizer: Tokenizer, size: int, file: Path) -> None:
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= size:
        raise SourceError("bad-vocabulary", f"it has id {largest}, the model knows 0 to {size - 1}", where=str(file))


def _from_json(file: Path) -> Tokenizer:
    text = _text(file)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as failure:
        raise SourceError("bad-vocabulary", f"not a tokenizer: {failure}", where=str(file)) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _clip_ids(file: Path) -> dict[str, int]:
    data = read_json(file)
    if not isinstance(data, dict) or not all(isinstance(i, int) and i >= 0 for i in data.values()):
        raise SourceError("bad-vocabulary", "not an object of token -> id", where=str(file))
    return data


def _merges(file: Path) -> Merges:
    if not file.is_file():
        raise SourceError("missing-file", "vocab.json is there, merges.txt is not", where=str(file))
    lines = _text(file).split("\n")
    return _pairs(lines[1:] if lines[0].startswith("#version") else lines, file)


def _original_merges(file: Path) -> Merges:
    try:
        with gzip.open(file) as stream:
            data = stream.read(_MAX_FILE)
        lines = data.decode().split("\n")
    except (OSError, EOFError, ValueError) as failure:
        raise SourceError("bad-vocabulary", f"not a gzip of text: {failure}", where=str(file)) from None
    return _pairs(lines[1 : _GZ_MERGES + 1], file)


def _pairs(lines: Sequence[str], file: Path) -> Merges:
    pairs = [tuple(line.split()) for line in lines if line.strip()]
    wrong = next((i for i, pair in enumerate(pairs) if len(pair) != 2), None)
    if wrong is not None:
        raise SourceError(
            "bad-vocabulary", f"merge {wrong} is not a pair: {' '.join(pairs[wrong])[:60]!r}", where=str(file)
        )
    return pairs  # type: ignore[return-value]


def _original_ids(merges: Merges) -> dict[str, int]:
    """Ids in the order of the original release: bytes, bytes that end a word, merges, the two special tokens."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    letters = [*map(chr, printable), *(chr(256 + i) for i in range(others))]
    words = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *("".join(pair) for pair in merges),
        CLIP_START,
        CLIP_END,
    ]
    return {word: i for i, word in enumerate(words)}


def _special_pad(folder: Path) -> str | None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            pad: Any = read_json(folder / name).get("pad_token")
            return pad.get("content") if isinstance(pad, dict) else pad
    return None


def _text(file: Path) -> str:
    if file.stat().st_size > _MAX_FILE:
        raise SourceError("too-large", f"{file.stat().st_size} bytes for a vocabulary", where=str(file))
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as failure:
        raise SourceError("bad-vocabulary", f"not UTF-8: {failure}", where=str(file)) from None
