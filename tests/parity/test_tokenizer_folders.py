"""Every published form of a tokenizer's folder against transformers: ids, padding and row lengths are equal."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ldmkit_conditioners.bpe import CLIP_END, CLIP_START, bert_vocabulary, clip_vocabulary, sentence_pieces
from ldmkit_conditioners.vocabulary import TruncationWarning, UnknownWordWarning, Vocabulary
from tokenizers import pre_tokenizers

import ldmkit

transformers = pytest.importorskip("transformers")

MERGES = [("r", "e"), ("re", "d</w>"), ("c", "a"), ("ca", "t</w>"), ("t", "h"), ("th", "e</w>"), ("h", "o")]
NAMES = {"bos_token": CLIP_START, "eos_token": CLIP_END, "unk_token": CLIP_END, "pad_token": CLIP_END}
TEXTS = [
    *("", "the red cat", "a <cat-toy>, <cat-toy>!", "x<cat-toy>y", "THE <CAT-TOY> <Ünï> <ünï>", "! wow!!", "<s>a</s>"),
    *("<sty> in <sty>_1 <sty>_2", "word  <lr>  word", "word<lr>word", "solo soloist my-solo solo", "<|endoftext|>b"),
    *(
        "日本語 e\u0301 é 😀👩\u200d👧",
        " \t\n <cat-toy>\u00a0\u3000",
        "red " * 300,
        "<cat-toy>" * 200,
        "[PAD] [MASK] [X]",
    ),
]


def fuzz(count: int = 60) -> list[str]:
    source = random.Random(7)
    pieces = [
        "<cat-toy>",
        "<lr>",
        "solo",
        "<s>",
        "!",
        " ",
        "  ",
        "\n",
        "Red",
        "cat",
        "<|endoftext|>",
        "é",
        "😀",
        "<Ünï>",
    ]
    pieces += [chr(source.randrange(32, 0x3000)) for _ in range(40)]
    return ["".join(source.choices(pieces, k=source.randrange(1, 40))) for _ in range(count)]


def base(folder: Path, **config: Any) -> Path:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [
        *letters,
        *(f"{c}</w>" for c in letters),
        *("".join(m) for m in MERGES),
        "<s>",
        "</s>",
        CLIP_START,
        CLIP_END,
    ]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, MERGES), ""]))
    (folder / "tokenizer_config.json").write_text(json.dumps({**NAMES, "model_max_length": 77, **config}))
    return folder


def add(folder: Path, name: str, data: Any) -> None:
    (folder / name).write_text(json.dumps(data))


def token(content: str, **flags: bool) -> dict[str, Any]:
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False, **flags}


def plain(folder: Path) -> None:
    base(folder)


def pads_with_a_word(folder: Path) -> None:
    base(folder, pad_token="!", model_max_length=64)


def map_overrules_config(folder: Path) -> None:
    base(folder)
    add(folder, "special_tokens_map.json", {**NAMES, "pad_token": "!"})


def objects(folder: Path) -> None:
    base(folder, **{key: {"__type": "AddedToken", **token(word)} for key, word in NAMES.items()})
    add(folder, "special_tokens_map.json", {key: token(word) for key, word in NAMES.items()})


def other_names(folder: Path) -> None:
    base(
        folder, bos_token="<s>", eos_token="</s>", unk_token="</s>", pad_token="<s>", additional_special_tokens=["<sp>"]
    )


def nothing_named(folder: Path) -> None:
    base(folder)
    add(folder, "tokenizer_config.json", {"model_max_length": 77})


def added_file(folder: Path) -> None:
    size = len(json.loads((base(folder) / "vocab.json").read_text()))
    added = {"<cat-toy>": size, "<Ünï>": size + 1, "[PAD]": size + 2}
    add(folder, "added_tokens.json", added)
    add(folder, "special_tokens_map.json", {**NAMES, "pad_token": "[PAD]"})


def decoder(folder: Path) -> None:
    size = len(json.loads((base(folder) / "vocab.json").read_text()))
    tokens = [token("<cat-toy>"), token("<lr>", lstrip=True, rstrip=True), token("solo", single_word=True)]
    tokens += [token("<Ünï>", normalized=False), token("[X]", special=True, normalized=False)]
    listed = {str(size - 2): token(CLIP_START, special=True, normalized=False)}
    listed |= {str(size - 1): token(CLIP_END, special=True)} | {str(size + i): t for i, t in enumerate(tokens)}
    base(folder, added_tokens_decoder=listed, extra_special_tokens=["[X]"], pad_token="!")
    add(folder, "special_tokens_map.json", {"pad_token": "r"})  # not read beside added_tokens_decoder


def saved_by_five(folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json alone, after embeddings were loaded."""
    made = transformers.CLIPTokenizer.from_pretrained(str(base(folder)), pad_token="!")
    flags = [
        ("<lr>", {"lstrip": True, "rstrip": True}),
        ("solo", {"single_word": True}),
        ("<Ünï>", {"normalized": False}),
    ]
    made.add_tokens(["<cat-toy>", *(transformers.AddedToken(word, **more) for word, more in flags)])
    made.add_special_tokens({"mask_token": "[MASK]"})
    for file in folder.iterdir():
        file.unlink()
    made.save_pretrained(folder)
    assert {file.name for file in folder.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}


FORMS = [plain, pads_with_a_word, map_overrules_config, objects, other_names, nothing_named, added_file, decoder]


def check(ours: Vocabulary, theirs: Any, limit: int) -> None:
    assert ours.pad == theirs.pad_token_id
    for text in [*TEXTS, *fuzz()]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)
            warnings.simplefilter("ignore", UnknownWordWarning)
            assert ours.encode(text, limit) == theirs(text, truncation=True, max_length=limit).input_ids, repr(text)


@pytest.mark.parametrize("form", [*FORMS, saved_by_five], ids=lambda form: form.__name__)
def test_clip(form: Callable[[Path], None], tmp_path: Path) -> None:
    (folder := tmp_path / "theirs").mkdir()
    (again := tmp_path / "ours").mkdir()
    form(folder)
    theirs = transformers.CLIPTokenizer.from_pretrained(str(folder))
    ours = clip_vocabulary(folder, len(theirs))
    assert ours is not None and ours.longest == theirs.model_max_length
    check(ours, theirs, theirs.model_max_length)
    ours.save(again)
    read = clip_vocabulary(again, len(theirs))
    assert read is not None and read.longest == ours.longest
    check(read, theirs, theirs.model_max_length)
    check(read, transformers.CLIPTokenizer.from_pretrained(str(again)), theirs.model_max_length)


def test_a_token_of_several_vectors(tmp_path: Path) -> None:
    """diffusers writes `<sty>` out as `<sty> <sty>_1 <sty>_2` before the text is split."""
    mixin = pytest.importorskip("diffusers.loaders.textual_inversion").TextualInversionLoaderMixin()
    theirs = transformers.CLIPTokenizer.from_pretrained(str(base(tmp_path)))
    theirs.add_tokens(["<cat-toy>", "<sty>", "<sty>_1", "<sty>_2"])
    theirs.save_pretrained(tmp_path)
    ours = clip_vocabulary(tmp_path, len(theirs))
    assert ours is not None
    for text in ("a <sty> of <cat-toy>", "x<sty>, <sty>", "no token"):
        written = mixin.maybe_convert_prompt(text, theirs)
        assert ours.encode(text, 77) == theirs(written, truncation=True, max_length=77).input_ids, text


@pytest.mark.parametrize("options", [{}, {"do_lower_case": False}, {"strip_accents": False}, {"pad_token": "red"}])
@pytest.mark.parametrize("saved", [False, True])
def test_bert(options: dict[str, Any], saved: bool, tmp_path: Path) -> None:
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZéÉ"
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *("##" + c for c in letters),
        *".,!<>-",
        "red",
        "日",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    add(tmp_path, "tokenizer_config.json", {"model_max_length": 77, **options})
    theirs = transformers.BertTokenizer.from_pretrained(str(tmp_path))
    if saved:
        theirs.add_tokens(["<cat-toy>", "solo"])
        (tmp_path / "vocab.txt").unlink()
        theirs.save_pretrained(tmp_path)
    ours = bert_vocabulary(tmp_path, len(theirs))
    assert ours is not None
    check(ours, theirs, 77)
    ours.save(tmp_path)
    again = bert_vocabulary(tmp_path, len(theirs))
    assert again is not None
    check(again, theirs, 77)


@pytest.mark.parametrize("saved", [False, True])
def test_t5(saved: bool, tmp_path: Path) -> None:
    spm = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    (tmp_path / "texts").write_text("\n".join(["the red cat by a lake", "a house, and the word!", "solo 123"] * 20))
    spm.SentencePieceTrainer.train(
        input=str(tmp_path / "texts"), model_prefix=str(tmp_path / "spiece"), vocab_size=45, pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    add(tmp_path, "tokenizer_config.json", {"model_max_length": 60})
    theirs = transformers.T5Tokenizer.from_pretrained(str(tmp_path))
    if saved:
        theirs.add_tokens(["<cat-toy>"])
        (tmp_path / "spiece.model").unlink()
        theirs.save_pretrained(tmp_path)
    ours = sentence_pieces(tmp_path, len(theirs), 1)
    assert ours is not None and (ours.end, ours.longest) == (1, 60)
    check(ours, theirs, 60)
    (again := tmp_path / "again").mkdir()
    ours.save(again)
    read = sentence_pieces(again, len(theirs), 1)
    assert read is not None
    for text in TEXTS:
        assert read.quietly(text, 60) == ours.quietly(text, 60)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"padding_side": "left"}, "padding_side"),
        ({"truncation_side": "left"}, "truncation_side"),
        ({"split_special_tokens": True}, "split_special_tokens"),
        ({"pad_token": None}, "padding token"),
        ({"model_max_length": "77"}, "model_max_length"),
        ({"bos_token": ["<s>"]}, "bos_token|no token"),
        ({"added_tokens_decoder": {"9999": token("<gap>")}}, "9999"),
        ({"added_tokens_decoder": {"x": token("<gap>")}}, "not a token id"),
    ],
)
def test_refused(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    """What transformers would do otherwise than these rows of ids are made, or does not read either."""
    base(tmp_path, **change)
    with pytest.raises(ldmkit.LdmkitError, match=says):
        clip_vocabulary(tmp_path, 60_000)
