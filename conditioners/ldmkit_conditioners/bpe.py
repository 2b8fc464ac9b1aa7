"""Vocabularies: CLIP's byte-pair encoding and BERT's uncased word pieces, on the `tokenizers` package.

Same ids as transformers' CLIPTokenizer and BertTokenizer, without importing transformers.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from ldmkit import SourceError, read_file, read_json, shown
from ldmkit_conditioners.recent import recent
from ldmkit_conditioners.tokenizer_files import CONFIG, Stated, check_largest, read_stated
from ldmkit_conditioners.vocabulary import Vocabulary, several_of

CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
CLIP_FILES = "tokenizer.json, vocab.json with merges.txt, or bpe_simple_vocab_16e6.txt.gz"
BERT_FILES = "tokenizer.json or vocab.txt (of bert-base-uncased)"

_CLIP = {"bos_token": CLIP_START, "eos_token": CLIP_END, "unk_token": CLIP_END, "pad_token": CLIP_END}
_BERT = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
"""Special tokens of the classes CLIPTokenizer and BertTokenizer, if a folder does not name its own."""

_GZ_NAME = "bpe_simple_vocab_16e6.txt.gz"
_GZ_MERGES = 49152 - 256 - 2
_MAX_FILE = 64 << 20
_CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

_BERT_OPTIONS = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}

Merges: TypeAlias = list[tuple[str, str]]


@recent
def clip_vocabulary(folder: Path, size: int) -> Vocabulary | None:
    """CLIP's vocabulary from the files in a folder; None if there are none.

    Args:
        size: rows of the embedding that the ids will index.

    Raises:
        SourceError: damaged files, or ids that exceed `size`.
    """
    if (file := folder / "tokenizer.json").is_file():
        tokenizer = _from_json(file)
        stated = read_stated(folder, _CLIP)
        if not stated.as_written:
            tokenizer = _clip(*_bytes_of(tokenizer, file), _unknown_of(stated), file)
    elif (file := folder / "vocab.json").is_file():
        stated = read_stated(folder, _CLIP)
        tokenizer = _clip(_clip_ids(file), _merges(folder / "merges.txt"), _unknown_of(stated), file)
    elif (file := folder / _GZ_NAME).is_file():
        stated, merges = Stated(str(folder), None, dict(_CLIP)), _original_merges(file)
        stated.tokens.extend(AddedToken(token, normalized=False, special=True) for token in (CLIP_START, CLIP_END))
        tokenizer = _clip(_original_ids(merges), merges, CLIP_END, file)
    else:
        return None
    found = _vocabulary(tokenizer, stated, ("bos", "eos"), size, file, "CLIPTokenizer")
    if found.pad is None:
        raise SourceError(
            "bad-vocabulary", "there is no padding token", where=str(folder), fits="pad_token in its config"
        )
    return replace(found, several=several_of(tokenizer))


@recent
def bert_vocabulary(folder: Path, size: int) -> Vocabulary | None:
    """BERT's uncased word pieces from the files in a folder; None if there are none. Errors as above."""
    if (file := folder / "tokenizer.json").is_file():
        tokenizer = _from_json(file)
        stated = read_stated(folder, _BERT)
        if not stated.as_written:
            tokenizer = _bert(_pieces_of(tokenizer, file), stated, file)
    elif (file := folder / "vocab.txt").is_file():
        stated = read_stated(folder, _BERT)
        tokenizer = _bert({line: i for i, line in enumerate(_text(file).split("\n")) if line}, stated, file)
    else:
        return None
    found = _vocabulary(tokenizer, stated, ("cls", "sep"), size, file, "BertTokenizer")
    return replace(found, unknown=tokenizer.token_to_id(_unknown_of(stated)), several=several_of(tokenizer))


def sentence_pieces(folder: Path, size: int, end: int) -> Vocabulary | None:
    """T5's sentence pieces as transformers reads them from tokenizer.json or spiece.model; None if there is neither.

    Args:
        end: the id of the end token, if the folder has no tokenizer_config.json that names it.
    """
    file = next((file for name in ("tokenizer.json", "spiece.model") if (file := folder / name).is_file()), None)
    if file is None:
        return None
    stated = read_stated(folder, {})
    if file.suffix == ".json" and stated.as_written:
        tokenizer = _from_json(file)
        found = Vocabulary(tokenizer, None, end)
    else:
        try:
            from transformers import T5Tokenizer

            theirs = T5Tokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as failure:
            raise SourceError("bad-vocabulary", f"not a sentence-piece model: {failure}", where=str(file)) from None
        tokenizer, named = theirs.backend_tokenizer, theirs.special_tokens_map
        check_largest(tokenizer.get_vocab().values(), file)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        own = {key: str(named[key]) for key in ("eos_token", "unk_token", "pad_token") if named.get(key)}
        config = {**own, **_limit(stated), "extra_ids": 0, "tokenizer_class": "TokenizersBackend"}
        found = Vocabulary(tokenizer, None, theirs.eos_token_id, config=config, pad=theirs.pad_token_id)
    _check_size(tokenizer, size, file)
    return replace(found, longest=stated.limit)


def _bert(ids: dict[str, int], stated: Stated, file: Path) -> Tokenizer:
    for name in ("pad_token", "unk_token", "cls_token", "sep_token"):
        if (needed := stated.special.get(name)) not in ids:
            raise SourceError("bad-vocabulary", f"{needed} is not in the list", where=str(file))
    options = {key: (stated.config or {}).get(key, default) for key, default in _BERT_OPTIONS.items()}
    if wrong := next(
        (key for key, value in options.items() if not isinstance(value, (bool, type(_BERT_OPTIONS[key])))), ""
    ):
        what = f"{wrong} is {shown(options[wrong])}"
        raise SourceError("bad-vocabulary", what, where=str(file.with_name(CONFIG)), fits="true or false")
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=_unknown_of(stated)))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=options["do_lower_case"],
        strip_accents=options["strip_accents"],
        handle_chinese_chars=options["tokenize_chinese_chars"],
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _clip(ids: Mapping[str, int], merges: Merges, unknown: str, file: Path) -> Tokenizer:
    try:
        model = models.BPE(
            dict(ids), merges, unk_token=unknown, continuing_subword_prefix="", end_of_word_suffix="</w>"
        )
    except Exception as failure:
        raise SourceError("bad-vocabulary", f"not a byte-pair vocabulary: {failure}", where=str(file)) from None
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


def _vocabulary(
    tokenizer: Tokenizer, stated: Stated, frame: tuple[str, str], size: int, file: Path, name: str
) -> Vocabulary:
    """A vocabulary that encloses texts in the two special tokens `frame`."""
    ids = stated.add_to(tokenizer)
    if missing := [word for word in frame if word not in ids]:
        tokens = " or ".join(str(stated.special.get(f"{word}_token")) for word in missing)
        raise SourceError("bad-vocabulary", f"{tokens} is not in the vocabulary", where=str(file))
    _check_size(tokenizer, size, file)
    config: dict[str, Any] = {key: value for key, value in stated.special.items() if key.removesuffix("_token") in ids}
    options = {key: value for key, value in (stated.config or {}).items() if key in _BERT_OPTIONS}
    config = {**config, **options, **_limit(stated), "tokenizer_class": name}
    if stated.as_written and file.suffix == ".json":
        config = dict(stated.config or {})
    start, end = (ids[word] for word in frame)
    return Vocabulary(tokenizer, start, end, pad=ids.get("pad"), longest=stated.limit, config=config)


def _limit(stated: Stated) -> dict[str, int]:
    return {} if stated.limit is None else {"model_max_length": stated.limit}


def _unknown_of(stated: Stated) -> str:
    return str(stated.special.get("unk_token"))


def _bytes_of(tokenizer: Tokenizer, file: Path) -> tuple[dict[str, int], Merges]:
    """Vocabulary and merges of a tokenizer.json. Of its other contents transformers uses only the added tokens."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("type") != "BPE":
        raise SourceError("bad-vocabulary", f"a model {model.get('type')!r}", where=str(file), fits="BPE, as CLIP's is")
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    return model["vocab"], [(pair[0], pair[1]) for pair in pairs]


def _pieces_of(tokenizer: Tokenizer, file: Path) -> dict[str, int]:
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("type") != "WordPiece":
        fits = "WordPiece, as BERT's is"
        raise SourceError("bad-vocabulary", f"a model {model.get('type')!r}", where=str(file), fits=fits)
    return dict(model["vocab"])


def _check_size(tokenizer: Tokenizer, size: int, file: Path) -> None:
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= size:
        raise SourceError("bad-vocabulary", f"it has id {largest}, the model has only 0 to {size - 1}", where=str(file))


def _from_json(file: Path) -> Tokenizer:
    text = _text(file)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as failure:
        raise SourceError("bad-vocabulary", f"not a tokenizer: {failure}", where=str(file)) from None
    check_largest(tokenizer.get_vocab().values(), file)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _clip_ids(file: Path) -> dict[str, int]:
    data = read_json(file)
    if not isinstance(data, dict) or not all(isinstance(i, int) and i >= 0 for i in data.values()):
        raise SourceError("bad-vocabulary", "not an object of token -> id", where=str(file))
    check_largest(data.values(), file)
    return data


def _merges(file: Path) -> Merges:
    if not file.is_file():
        raise SourceError("missing-file", "there is vocab.json, but no merges.txt", where=str(file))
    lines = _text(file).split("\n")
    return _pairs(lines[1:] if lines[0].startswith("#version") else lines, file)


def _original_merges(file: Path) -> Merges:
    try:
        with gzip.open(io.BytesIO(read_file(file, _MAX_FILE))) as stream:
            data = stream.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise ValueError(f"it unpacks to more than {_MAX_FILE} bytes")
        lines = data.decode().split("\n")
    except (OSError, EOFError, ValueError, zlib.error) as failure:
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


def _text(file: Path) -> str:
    try:
        return read_file(file, _MAX_FILE).decode()
    except UnicodeDecodeError as failure:
        raise SourceError("bad-vocabulary", f"not UTF-8: {failure}", where=str(file)) from None
