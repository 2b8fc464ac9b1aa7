"""Textual inversion that does not fit, is damaged or hostile: a clear error, and nothing attached."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import embedding_files as made
import pytest
import tiny_diffusers as tiny
import torch
from embedding_files import ours, vectors

import ldmkit
from ldmkit.errors import LdmkitError


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ldmkit.Pipeline:
    return ldmkit.load(tiny.saved(tiny.stable_diffusion(), tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def plain_xl(tmp_path_factory: pytest.TempPathFactory) -> ldmkit.Pipeline:
    return ldmkit.load(tiny.saved(tiny.stable_diffusion_xl(), tmp_path_factory.mktemp("xl")))


class Hostile:
    """Runs a command where a file is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/words-was-here",)


NAN = torch.tensor([[float("nan")] * 32])
SAFE: dict[str, tuple[dict[str, torch.Tensor], str, tuple[str, ...]]] = {
    "SD 2's": ({"emb_params": vectors(2, 1024)}, "other-base", ("'emb_params'", "[2, 1024]", "vectors of 32", "768")),
    "SDXL's": (
        {"clip_l": vectors(2, 768), "clip_g": vectors(2, 1280)},
        "other-base",
        ("'clip_l' [2, 768]", "'clip_g' [2, 1280]", "'text' with 32"),
    ),
    "empty": ({"<cat>": torch.zeros(0, 32)}, "wrong-shape", ("'<cat>'", "[0, 32]")),
    "a plane": ({"<cat>": torch.zeros(2, 3, 32)}, "wrong-shape", ("'<cat>'", "[2, 3, 32]", "(n, width)")),
    "a number": ({"<cat>": torch.zeros(())}, "wrong-shape", ("'<cat>'", "[]")),
    "integers": ({"<cat>": torch.zeros(2, 32, dtype=torch.int64)}, "wrong-shape", ("int64",)),
    "NaN": ({"<cat>": NAN}, "not-finite", ("'<cat>'",)),
    "more than a prompt holds": ({"<cat>": torch.zeros(76, 32)}, "wrong-shape", ("76 vectors", "at most 75")),
    "a stranger beside": ({"emb_params": vectors(1), "extra": vectors(1)}, "unknown-key", ("'extra'",)),
    "one encoder twice": (
        {"clip_l": vectors(1), "text_encoders_0": vectors(1)},
        "duplicate-key",
        ("'clip_l'", "'text_encoders_0'"),
    ),
    "a model": ({"a.weight": vectors(1), "b.weight": vectors(1)}, "unrecognised", ("Pipeline.with_lora",)),
    "a weight": ({"proj.weight": vectors(1)}, "unrecognised", ("Pipeline.with_lora",)),
}


def refused(pipe: ldmkit.Pipeline, file: Path, code: str, says: tuple[str, ...], token: str | None = None) -> None:
    spec = pipe.spec.hash
    with pytest.raises(LdmkitError) as caught:
        pipe.with_embedding(file, token)
    assert caught.value.code.endswith(f".{code}"), caught.value
    for words in (*says, str(file)):
        assert words in str(caught.value)
    assert pipe.spec.hash == spec and pipe.updates == ()


@pytest.mark.parametrize("case", SAFE)
def test_safetensors(plain: ldmkit.Pipeline, case: str, tmp_path: Path) -> None:
    tensors, code, says = SAFE[case]
    refused(plain, made.safe(tmp_path, tensors), code, says)


TREES: dict[str, tuple[Callable[[], Any], str, tuple[str, ...]]] = {
    "hostile": (lambda: {**made.a1111(vectors(1)), "run": Hostile()}, "pickle-global", ("system",)),
    "hostile vectors": (lambda: {"string_to_param": {"*": Hostile()}}, "pickle-global", ("system",)),
    "two words": (
        lambda: {"string_to_param": {"*": vectors(1), "+": vectors(1)}},
        "several-tokens",
        ("'string_to_param'", "2 entries"),
    ),
    "no vectors": (lambda: {"string_to_param": {}}, "several-tokens", ("0 entries",)),
    "a text": (lambda: {"string_to_param": "x", "name": "<cat>"}, "several-tokens", ("a str",)),
    "a list": (lambda: {"string_to_param": {"*": [1.0]}}, "no-tensors", ("a list", "'*'")),
    "a list of tensors": (lambda: [vectors(1)], "unrecognised", ()),
    "step counts": (lambda: {"step": 3}, "unrecognised", ()),
}


@pytest.mark.parametrize("case", TREES)
def test_torch_files(plain: ldmkit.Pipeline, case: str, tmp_path: Path) -> None:
    """A pickle never runs code, whatever it asks for."""
    tree, code, says = TREES[case]
    refused(plain, made.torch_file(tmp_path, tree()), code, says)
    assert not Path("/tmp/words-was-here").exists()


def test_damaged_files(plain: ldmkit.Pipeline, tmp_path: Path) -> None:
    """Whichever byte is wrong: an error, or (in names and numbers) an embedding, but no other exception."""
    whole = made.torch_file(tmp_path, made.a1111(vectors(1), module=True)).read_bytes()
    file = tmp_path / "damaged.pt"
    step = max(1, len(whole) // 60)
    for at in range(0, len(whole), step):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :]):
            file.write_bytes(data)
            try:
                plain.with_embedding(file)
            except LdmkitError as error:
                assert str(file) in str(error)


@pytest.mark.parametrize("token", ["th", "a", "<|endoftext|>", "TH", "z</w>", "<|StartOfText|>"])
def test_words_with_a_meaning(plain: ldmkit.Pipeline, token: str, tmp_path: Path) -> None:
    refused(plain, made.safe(tmp_path, {"emb_params": vectors(1)}), "token-taken", (repr(token),), token)


@pytest.mark.parametrize("token", ["", " <cat>", "<cat>\n", "\0", " "])
def test_no_words(plain: ldmkit.Pipeline, token: str, tmp_path: Path) -> None:
    with pytest.raises(LdmkitError, match="token"):
        plain.with_embedding(made.safe(tmp_path, {"emb_params": vectors(1)}), token)
    with pytest.raises(LdmkitError, match="token"):
        plain.with_embedding(tmp_path / "words.safetensors", 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("token", ["<cat>", "<CAT>", "<cat>_1", "<cat>_2"])
def test_a_word_is_learnt_once(plain: ldmkit.Pipeline, token: str, tmp_path: Path) -> None:
    """`<cat>_2` too would be taken for a further vector of `<cat>` when the pipeline is saved and loaded."""
    taught = plain.with_embedding(made.torch_file(tmp_path, made.a1111(vectors(2))))
    with pytest.raises(LdmkitError, match="token-taken"):
        taught.with_embedding(made.safe(tmp_path, {"emb_params": vectors(1)}), token)
    later = plain.with_embedding(made.safe(tmp_path, {"emb_params": vectors(1)}), "<dog>_1")
    with pytest.raises(LdmkitError, match="token-taken"):
        later.with_embedding(tmp_path / "words.safetensors", "<dog>")


def test_one_name_for_two_words(plain: ldmkit.Pipeline, tmp_path: Path) -> None:
    file = made.safe(tmp_path, {"<cat>": vectors(1), "<dog>": vectors(1)})
    with pytest.raises(LdmkitError, match=r"several-tokens.*'<cat>', '<dog>'"):
        plain.with_embedding(file, "<pet>")


def test_half_of_a_file_for_two_encoders(plain_xl: ldmkit.Pipeline, tmp_path: Path) -> None:
    refused(plain_xl, made.safe(tmp_path, {"clip_l": vectors(1)}), "half-a-pair", ("'clip_l' [1, 32]", "'clip_g'"))
    refused(plain_xl, made.safe(tmp_path, {"emb_params": vectors(1)}), "other-base", ("'emb_params'", "'text-2' with"))
    three = {"clip_l": vectors(1), "clip_g": vectors(1), "t5xxl": vectors(1, 64)}
    refused(plain_xl, made.safe(tmp_path, three), "other-base", ("'t5xxl' [1, 64]",))
    uneven = {"clip_l": vectors(1), "clip_g": vectors(2)}
    refused(plain_xl, made.safe(tmp_path, uneven), "wrong-shape", ("[1, 32]", "[2, 32]"))
    before = ours(plain_xl, "a <cat>")
    wide = {"clip_l": vectors(1), "clip_g": vectors(1, 40)}
    refused(plain_xl, made.safe(tmp_path, wide), "other-base", ("'clip_g'", "[1, 40]", "'text-2'"), "<cat>")
    assert torch.equal(ours(plain_xl, "a <cat>"), before)


def test_a_pipeline_without_text_or_vocabulary(plain: ldmkit.Pipeline, tmp_path: Path) -> None:
    file = made.safe(tmp_path, {"<cat>": vectors(1)})
    with pytest.raises(LdmkitError, match=r"other-base.*no text encoder"):
        ldmkit.load("miniworld").with_(conditioners={"text": None}).with_embedding(file)
    text: Any = plain.conditioners["text"]
    bare = plain.with_(conditioners={"text": type(text)(text.config)})
    with pytest.raises(LdmkitError, match=r"no-vocabulary.*load_assets"):
        bare.with_embedding(file)
    with pytest.raises(LdmkitError, match="not-found"):
        plain.with_embedding(tmp_path / "absent.pt")
    with pytest.raises(LdmkitError, match="path-type"):
        plain.with_embedding(3)  # type: ignore[arg-type]
