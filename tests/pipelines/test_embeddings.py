"""Textual inversion: every published layout, against diffusers with the same vectors.

Tolerance: latents of float32 pipelines agree to 1e-4 of their largest value, as elsewhere; the differences are 1e-6,
and a word that is not known changes them by more than 1e-2.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import embedding_files as made
import pytest
import tiny_diffusers as tiny
import torch
from embedding_files import far, ours, theirs, vectors
from torch import nn

import ldmkit

TEXT, NEGATIVE = "the <cat> in a house", "bad, blur"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ldmkit.Pipeline]:
    folder = tiny.saved(made.loud(tiny.stable_diffusion()), tmp_path_factory.mktemp("base"))
    return folder, ldmkit.load(folder)


@pytest.fixture(scope="module")
def base_xl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ldmkit.Pipeline]:
    folder = tiny.saved(made.loud(tiny.stable_diffusion_xl()), tmp_path_factory.mktemp("xl"))
    return folder, ldmkit.load(folder)


def opened(folder: Path) -> Any:
    return tiny.diffusers.DiffusionPipeline.from_pretrained(folder)


FILES: dict[str, tuple[int, Callable[[Path], Path]]] = {
    "A1111": (3, lambda folder: made.torch_file(folder, made.a1111(vectors(3)))),
    "A1111, one vector": (1, lambda folder: made.torch_file(folder, made.a1111(vectors(1)))),
    "A1111, a module": (2, lambda folder: made.torch_file(folder, made.a1111(vectors(2), module=True))),
    "A1111, named by its file": (2, lambda folder: made.torch_file(folder, made.a1111(vectors(2), None), "<cat>.pt")),
    "A1111, half": (2, lambda folder: made.torch_file(folder, made.a1111(vectors(2).half()))),
    "emb_params": (4, lambda folder: made.safe(folder, {"emb_params": vectors(4)}, "<cat>.safetensors")),
    "emb_params in a torch file": (2, lambda folder: made.torch_file(folder, {"emb_params": vectors(2)}, "<cat>.pt")),
    "diffusers": (1, lambda folder: made.torch_file(folder, {"<cat>": vectors(1)[0]}, "learned_embeds.bin")),
    "diffusers, a parameter": (1, lambda folder: made.torch_file(folder, {"<cat>": nn.Parameter(vectors(1)[0])})),
    "diffusers, safetensors": (2, lambda folder: made.safe(folder, {"<cat>": vectors(2)})),
    "diffusers, a folder": (2, lambda folder: made.safe(folder, {"<cat>": vectors(2)}, "learned_embeds.safetensors")),
    "a tensor": (2, lambda folder: made.torch_file(folder, vectors(2), "<cat>.pt")),
}


@pytest.mark.parametrize("layout", FILES)
def test_layouts(base: tuple[Path, ldmkit.Pipeline], layout: str, tmp_path: Path) -> None:
    folder, plain = base
    count, write = FILES[layout]
    file = write(tmp_path / "words")
    taught = plain.with_embedding(file.parent if "folder" in layout else file)
    reference = opened(folder)
    values = vectors(count).half().float() if "half" in layout else vectors(count)
    reference.load_textual_inversion(values, token="<cat>")
    want = theirs(reference, TEXT, NEGATIVE)
    assert far(ours(taught, TEXT, NEGATIVE), want) < 1e-4
    assert far(ours(plain, TEXT, NEGATIVE), want) > 1e-2
    assert taught.updates[-1]["tokens"] == ["<cat>"]


@pytest.mark.parametrize(
    ("text", "negative"),
    [("a house", "<cat>, bad"), ("<cat><cat>", ""), ("<CAT> and <Cat>", ""), ("b <cat>, x", "not a <cat>")],
)
def test_where_a_word_stands(base: tuple[Path, ldmkit.Pipeline], text: str, negative: str, tmp_path: Path) -> None:
    """Upper case reads as lower case. (diffusers splits the text before: it finds no further vectors of <CAT>.)"""
    folder, plain = base
    taught = plain.with_embedding(made.torch_file(tmp_path, made.a1111(vectors(3))))
    reference = opened(folder)
    reference.load_textual_inversion(vectors(3), token="<cat>")
    want = theirs(reference, text.lower(), negative)
    assert far(ours(taught, text, negative), want) < 1e-4


def test_two_text_encoders(base_xl: tuple[Path, ldmkit.Pipeline], tmp_path: Path) -> None:
    folder, plain = base_xl
    both = {"clip_l": vectors(2), "clip_g": vectors(2, seed=6)}
    early = {"text_encoders_0": both["clip_l"], "text_encoders_1": both["clip_g"]}
    reference = opened(folder)
    for key, number in (("clip_l", ""), ("clip_g", "_2")):
        model, words = (getattr(reference, f"{part}{number}") for part in ("text_encoder", "tokenizer"))
        reference.load_textual_inversion(both[key], token="<cat>", text_encoder=model, tokenizer=words)
    want = theirs(reference, TEXT, NEGATIVE)
    assert far(ours(plain, TEXT, NEGATIVE), want) > 1e-2
    for tensors in (both, early):
        taught = plain.with_embedding(made.safe(tmp_path, tensors), "<cat>")
        assert far(ours(taught, TEXT, NEGATIVE), want) < 1e-4
    taught.save(tmp_path / "saved")
    assert torch.equal(ours(ldmkit.load(tmp_path / "saved"), TEXT), ours(taught, TEXT))


def test_the_refiner_takes_its_half(tmp_path: Path) -> None:
    pipe = ldmkit.load(tiny.saved(made.loud(tiny.refiner()), tmp_path / "base"))
    plain = pipe.conditioners["text"](["the <cat>"]).value
    with pytest.warns(UserWarning, match="'clip_l' is not used"):
        taught = pipe.with_embedding(made.safe(tmp_path, {"clip_l": vectors(1), "clip_g": vectors(1, seed=6)}), "<cat>")
    alone = pipe.with_embedding(made.safe(tmp_path, {"clip_g": vectors(1, seed=6)}, "g.safetensors"), "<cat>")
    for one in (taught, alone):
        text = one.conditioners["text"]
        assert torch.equal(text.weights.tokens.weight[-1], vectors(1, seed=6)[0])  # type: ignore[attr-defined]
        assert not torch.equal(text(["the <cat>"]).value, plain)


def test_the_pipeline_stays_as_it_was(base_xl: tuple[Path, ldmkit.Pipeline], tmp_path: Path) -> None:
    _, plain = base_xl
    keys = {path: list(part.state_dict()) for path, part in plain.parts.items().items()}
    spec, before = plain.spec.hash, ours(plain, TEXT)
    taught = plain.with_embedding(made.safe(tmp_path, {"clip_l": vectors(2), "clip_g": vectors(2)}), "<cat>")
    assert torch.equal(ours(plain, TEXT), before) and not torch.equal(ours(taught, TEXT), before)
    assert plain.spec.hash == spec != taught.spec.hash and plain.updates == ()
    for pipe in (plain, taught):
        assert {path: list(part.state_dict()) for path, part in pipe.parts.items().items()} == keys
    assert torch.equal(ours(taught, "no such word"), ours(plain, "no such word"))
    mine = {name for name, _ in taught.conditioners["text-2"].named_parameters()} - {"tower.tokens.weight"}
    own, others = (dict(pipe.conditioners["text-2"].named_parameters()) for pipe in (taught, plain))
    assert all(own[name].data_ptr() == others[name].data_ptr() for name in mine)
    assert torch.equal(own["tower.tokens.weight"][:-2], others["tower.tokens.weight"])


def test_several_words(base: tuple[Path, ldmkit.Pipeline], tmp_path: Path) -> None:
    """From several files, and from one; words that begin alike stay apart."""
    folder, plain = base
    reference = opened(folder)
    words = {"<cat>": vectors(2), "<cats>": vectors(1, seed=7), "easyneg": vectors(3, seed=8)}
    taught = plain
    for number, (word, values) in enumerate(words.items()):
        reference.load_textual_inversion(values, token=word)
        taught = taught.with_embedding(made.safe(tmp_path, {"emb_params": values}, f"{number}.safetensors"), word)
    text = "a <cats> and a <cat> EASYNEG"
    want = theirs(reference, text.lower(), "easyneg")
    assert far(ours(taught, text, "easyneg"), want) < 1e-4
    pair = {word: words[word] for word in ("<cat>", "<cats>")}
    at_once = plain.with_embedding(made.safe(tmp_path, pair)).with_embedding(tmp_path / "2.safetensors", "easyneg")
    assert torch.equal(ours(at_once, text), ours(taught, text))
    assert at_once.updates[0]["tokens"] == ["<cat>", "<cats>"]


def test_the_budget_counts_every_vector(base: tuple[Path, ldmkit.Pipeline], tmp_path: Path) -> None:
    folder, plain = base
    taught = plain.with_embedding(made.torch_file(tmp_path, made.a1111(vectors(6))))
    reference = opened(folder)
    reference.load_textual_inversion(vectors(6), token="<cat>")
    text = "ab " * 35 + "<cat> x"
    with pytest.warns(UserWarning, match="has 77 tokens, 75 fit"):
        got = ours(taught, text)
    assert far(got, theirs(reference, text)) < 1e-4


def test_a_file_under_another_ending(base: tuple[Path, ldmkit.Pipeline], tmp_path: Path) -> None:
    _, plain = base
    safe, pickled = made.safe(tmp_path, {"<cat>": vectors(2)}), made.torch_file(tmp_path, {"<cat>": vectors(2)})
    want = ours(plain.with_embedding(safe), TEXT)
    for file, name in ((safe, "a.pt"), (pickled, "b.safetensors"), (safe, "c"), (pickled, "d")):
        file.with_name(name).write_bytes(file.read_bytes())
        assert torch.equal(ours(plain.with_embedding(file.with_name(name)), TEXT), want)


def test_stable_diffusion_2(tmp_path: Path) -> None:
    """GELU, and padding with a word of the vocabulary."""
    pipe = tiny.stable_diffusion(use_linear_projection=True)
    torch.manual_seed(1)
    pipe.text_encoder, pipe.tokenizer.pad_token = tiny.text_model(act="gelu").eval(), "z"
    folder = tiny.saved(made.loud(pipe), tmp_path / "base")
    plain, reference = ldmkit.load(folder), opened(folder)
    taught = plain.with_embedding(made.torch_file(tmp_path, made.a1111(vectors(3))))
    reference.load_textual_inversion(vectors(3), token="<cat>")
    want = theirs(reference, TEXT, NEGATIVE)
    assert far(ours(taught, TEXT, NEGATIVE), want) < 1e-4
    assert far(ours(plain, TEXT, NEGATIVE), want) > 1e-2


def test_configs_of_old_pool_at_the_largest_id(tmp_path: Path) -> None:
    """With `eos_token_id` 2, as SDXL was published, transformers pools at the largest id: that of the learnt word."""
    pipe = made.loud(tiny.stable_diffusion_xl())
    pipe.text_encoder_2.config.eos_token_id = 2
    folder = tiny.saved(pipe, tmp_path / "base")
    plain, reference = ldmkit.load(folder), opened(folder)
    both = {"clip_l": vectors(2), "clip_g": vectors(2, seed=6)}
    for key, number in (("clip_l", ""), ("clip_g", "_2")):
        model, words = (getattr(reference, f"{part}{number}") for part in ("text_encoder", "tokenizer"))
        reference.load_textual_inversion(both[key], token="<cat>", text_encoder=model, tokenizer=words)
    taught = plain.with_embedding(made.safe(tmp_path, both), "<cat>")
    assert taught.conditioners["pooled"].config.pool == "argmax"
    assert far(ours(taught, TEXT, NEGATIVE), theirs(reference, TEXT, NEGATIVE)) < 1e-4


def test_half_precision_and_placement(base: tuple[Path, ldmkit.Pipeline], tmp_path: Path) -> None:
    _, plain = base
    file = made.torch_file(tmp_path, made.a1111(vectors(2)))
    taught = plain.with_embedding(file)
    placed = plain.placed("low-memory").with_embedding(file)
    assert torch.equal(ours(placed, TEXT), ours(taught, TEXT))
    assert torch.equal(ours(taught.placed("low-memory"), TEXT), ours(taught, TEXT))
    low = ldmkit.load(base[0], dtype="bfloat16").with_embedding(file)
    assert low.conditioners["text"].weights.tokens.weight.dtype == torch.bfloat16  # type: ignore[attr-defined]
