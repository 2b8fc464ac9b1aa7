"""Learnt words together with the rest: LoRA on the text encoder, saving, recipes, replaying, the command line."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import embedding_files as made
import lora_files
import pytest
import tiny_diffusers as tiny
import torch
from embedding_files import far, ours, theirs, vectors
from ldmkit_checkpoints.diffusers.export import save_diffusers

import ldmkit
from ldmkit.cli import main
from ldmkit.cli.words import parse_embedding
from ldmkit.errors import LdmkitError
from ldmkit.replaying import replay, with_updates

TEXT = "the <cat> in a house"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(made.loud(tiny.stable_diffusion()), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def plain(folder: Path) -> ldmkit.Pipeline:
    return ldmkit.load(folder)


def test_with_a_lora_on_the_text_encoder(folder: Path, plain: ldmkit.Pipeline, tmp_path: Path) -> None:
    """In either order, as diffusers with both; the LoRA acts on the copies too."""
    reference: Any = tiny.diffusers.DiffusionPipeline.from_pretrained(folder)
    words = {"r": 3, "lora_alpha": 5, "target_modules": lora_files.TEXT}
    unet = {"r": 4, "lora_alpha": 8, "target_modules": lora_files.ATTENTION}
    lora = lora_files.by_diffusers(tiny.diffusers.DiffusionPipeline.from_pretrained(folder), tmp_path, unet, words)
    file = made.safe(tmp_path / "words", {"<cat>": vectors(2)})
    reference.load_textual_inversion(vectors(2), token="<cat>")
    without = theirs(reference, TEXT)
    reference.load_lora_weights(lora)
    want = theirs(reference, TEXT)
    first, last = plain.with_embedding(file).with_lora(lora), plain.with_lora(lora).with_embedding(file)
    assert far(without, want) > 1e-3
    for pipe in (first, last):
        assert far(ours(pipe, TEXT), want) < 1e-4
    assert [one.get("kind", "lora") for one in last.updates] == ["lora", "embedding"]
    assert far(ours(last.fused(), TEXT), want) < 1e-4
    last.save(tmp_path / "saved")
    assert torch.equal(ours(ldmkit.load(tmp_path / "saved"), TEXT), ours(last, TEXT))


def test_saved_folders(plain: ldmkit.Pipeline, tmp_path: Path) -> None:
    """A saved pipeline keeps the words, in our format and in diffusers', with several vectors each."""
    taught = plain.with_embedding(made.torch_file(tmp_path, made.a1111(vectors(3))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing of it is not saved
        folder = taught.save(tmp_path / "native")
    again = ldmkit.load(folder)
    assert again.updates == () and torch.equal(ours(again, TEXT), ours(taught, TEXT))
    more = again.with_embedding(made.safe(tmp_path, {"<dog>": vectors(2, seed=8)}))
    assert torch.equal(ours(more, TEXT), ours(taught, TEXT))
    exported = save_diffusers(more, tmp_path / "exported")
    reference: Any = tiny.diffusers.DiffusionPipeline.from_pretrained(exported)
    both = f"{TEXT} and a <dog>"
    assert far(ours(more, both), theirs(reference, both)) < 1e-4
    assert torch.equal(ours(ldmkit.load(exported), both), ours(more, both))


def test_a_folder_saved_by_diffusers_learns_more(folder: Path, tmp_path: Path) -> None:
    reference: Any = tiny.diffusers.DiffusionPipeline.from_pretrained(folder)
    reference.load_textual_inversion(vectors(2), token="<cat>")
    pipe = ldmkit.load(tiny.saved(reference, tmp_path / "theirs"))
    taught = pipe.with_embedding(made.safe(tmp_path, {"<dog>": vectors(2, seed=8)}))
    reference.load_textual_inversion(vectors(2, seed=8), token="<dog>")
    both = f"{TEXT} and a <dog>"
    assert far(ours(taught, both), theirs(reference, both)) < 1e-4
    with pytest.raises(LdmkitError, match="token-taken"):
        pipe.with_embedding(tmp_path / "words.safetensors", "<cat>")


def test_replay(folder: Path, plain: ldmkit.Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture's recipe names the file with its digest and the word; another file is refused."""
    file = made.safe(tmp_path, {"emb_params": vectors(2)}, "a=b.safetensors")
    words = ["sample", str(folder), "--text", TEXT, "--steps", "2", "--size", "32", "--embedding", f"{file}=<cat>"]
    assert main([*words, "--out", str(tmp_path / "p.png")]) == 0
    recipe = ldmkit.read_recipe(tmp_path / "p.png")
    assert [(one["kind"], one["tokens"]) for one in recipe["updates"]] == [("embedding", ["<cat>"])]
    drawn = plain.with_embedding(file, "<cat>")({"text": TEXT}, steps=2, size=32, seeds=[0])
    assert torch.equal(replay(with_updates(plain, recipe), recipe).images, drawn.images)
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "p.png"), "--model", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] == 0
    made.safe(tmp_path, {"emb_params": vectors(2, seed=9)}, "a=b.safetensors")
    assert main(["replay", str(tmp_path / "p.png"), "--model", str(folder)]) != 0
    assert "source.other-update" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    shutil.move(tmp_path / "p.png", tmp_path / "other" / "p.png")
    assert main(["replay", str(tmp_path / "other" / "p.png"), "--model", str(folder)]) != 0
    assert "recipe-needs" in capsys.readouterr().err


def test_a_file_of_several_words_is_replayed(plain: ldmkit.Pipeline, tmp_path: Path) -> None:
    file = made.safe(tmp_path, {"<cat>": vectors(1), "<dog>": vectors(2)})
    drawn = plain.with_embedding(file)({"text": "a <dog>"}, steps=2, size=32, seeds=[0])
    recipe = drawn.recipes[0]
    assert torch.equal(replay(with_updates(plain, recipe), recipe).images, drawn.images)
    other = plain.with_embedding(
        made.safe(tmp_path, {"<cat>": vectors(1), "<dog>": vectors(2, seed=9)}, "b.safetensors")
    )
    assert other.spec.hash == recipe["spec"]
    with pytest.raises(LdmkitError, match="other-update"):
        replay(other, recipe)
    recipe["updates"][0]["tokens"] = 5
    with pytest.raises(LdmkitError, match="tokens"):
        with_updates(plain, recipe)


def test_the_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = made.safe(tmp_path, {"<cat>": vectors(1)}, "a=b.safetensors")
    assert parse_embedding(str(file)) == (str(file), {})
    assert parse_embedding(f"{file}=x=y") == (str(file), {"token": "x=y"})
    assert parse_embedding("hf:a/b=<cat>") == ("hf:a/b", {"token": "<cat>"})
    for text, code in ((f"{file}=", "input.token"), (str(tmp_path / "absent.pt"), "not-found")):
        assert main(["sample", "miniworld", "--embedding", text, "--out", str(tmp_path / "p.png")]) != 0
        assert code in capsys.readouterr().err and not (tmp_path / "p.png").exists()
    assert main(["sample", "miniworld", "--embedding", str(file), "--out", str(tmp_path / "p.png")]) != 0
    assert "other-base" in capsys.readouterr().err
