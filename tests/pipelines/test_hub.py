"""The hub without a network: which files would be fetched, and folders as its cache keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_diffusers as tiny
import torch
from huggingface_hub import constants

import ldmkit
from ldmkit.models.hub import check_variant, wanted

STABLE_DIFFUSION = {
    "README.md": False,
    "model_index.json": True,
    "v1-5-pruned.ckpt": False,
    "v1-5-pruned.safetensors": False,
    "v1-inference.yaml": True,
    "scheduler/scheduler_config.json": True,
    "tokenizer/merges.txt": True,
    "tokenizer/vocab.json": True,
    "safety_checker/model.safetensors": False,
    "text_encoder/model.safetensors": True,
    "text_encoder/model.fp16.safetensors": False,
    "text_encoder/pytorch_model.bin": False,
    "text_encoder/flax_model.msgpack": False,
    "unet/diffusion_pytorch_model.safetensors": True,
    "unet/diffusion_pytorch_model.fp16.safetensors": False,
    "unet/diffusion_pytorch_model.non_ema.safetensors": True,
    "unet/diffusion_pytorch_model.non_ema.bin": False,
    "unet/model.onnx": False,
    "vae/diffusion_pytorch_model.safetensors": True,
    "vae_1_0/diffusion_pytorch_model.bin": True,
}
SHARDED = {
    "unet/diffusion_pytorch_model-00001-of-00002.safetensors": True,
    "unet/diffusion_pytorch_model.safetensors.index.json": True,
    "unet/diffusion_pytorch_model.safetensors.index.fp16.json": True,
    "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors": False,
    "unet/diffusion_pytorch_model-00001-of-00002.fp16.safetensors": False,  # diffusers' older name
}
HALF = {
    "model_index.json": True,
    "unet/diffusion_pytorch_model.safetensors": False,
    "unet/diffusion_pytorch_model.non_ema.safetensors": False,
    "unet/diffusion_pytorch_model.fp16.safetensors": True,
    "text_encoder/model.safetensors": False,
    "text_encoder/model.fp16-00001-of-00002.safetensors": True,
    "text_encoder_2/model.safetensors": False,
    "text_encoder_2/pytorch_model.fp16.bin": True,
    "vae/diffusion_pytorch_model.safetensors": True,  # has no such variant
    "vae/diffusion_pytorch_model.bin": False,
}
CHECKPOINT = {"model.ckpt": True, "config.yaml": True, "preview.png": False}
SAFE = {"model.ckpt": False, "model.safetensors": True}


@pytest.mark.parametrize("repository", [STABLE_DIFFUSION, SHARDED, CHECKPOINT, SAFE])
def test_only_what_a_reader_opens_is_fetched(repository: dict[str, bool]) -> None:
    assert wanted(repository) == [name for name, needed in repository.items() if needed]


def test_variants_are_fetched_by_name() -> None:
    assert wanted(HALF, "fp16") == [name for name, needed in HALF.items() if needed]


@pytest.mark.parametrize(
    ("variant", "left", "says"),
    [
        ("fp16", "", ""),
        ("bf16", "", r"no-variant.*'bf16'.*variant='fp16'.*variant='non_ema'"),
        (None, "vae/diffusion_pytorch_model.safetensors", "variant-needed.*vae.*'fp16'"),
    ],
)
def test_what_could_not_be_read_is_not_fetched(variant: str | None, left: str, says: str) -> None:
    names = [*STABLE_DIFFUSION, "vae/diffusion_pytorch_model.fp16.safetensors"]
    names = [name for name in names if name != left]
    if not says:
        check_variant(names, variant, "hf:a/b")
        return
    with pytest.raises(ldmkit.SourceError, match=says):
        check_variant(names, variant, "hf:a/b")


def cached(folder: Path, cache: Path, revision: str) -> None:
    """A repository `some/model` in the cache's own layout: snapshots of links into blobs."""
    root = cache / "models--some--model"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    commit = f"{len(list((root / 'refs').iterdir())):040x}"
    (root / "refs" / revision).write_text(commit)
    (root / "blobs").mkdir(exist_ok=True)
    for path in folder.rglob("*"):
        if path.is_file():
            link = root / "snapshots" / commit / path.relative_to(folder)
            blob = root / "blobs" / f"{revision}-{'-'.join(path.relative_to(folder).parts)}"
            blob.write_bytes(path.read_bytes())
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)


def test_the_cache_is_read_by_revision(
    tmp_path: Path, class_folder: Path, class_pipe: ldmkit.Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    cached(tiny.saved(tiny.stable_diffusion(), tmp_path / "published"), cache, "main")
    cached(class_folder, cache, "v2")
    assert list(ldmkit.load("hf:some/model").conditioners) == ["text"]
    second = ldmkit.load("hf:some/model@v2")
    assert second.spec.hash == class_pipe.spec.hash and second.origin == "hf:some/model@v2"
    assert torch.equal(second({"label": 1}).images, class_pipe({"label": 1}).images)
    with pytest.raises(ldmkit.SourceError, match=r"hub.*some/model@v3"):
        ldmkit.load("hf:some/model@v3")


def test_an_index_comes_before_a_stray_checkpoint(tmp_path: Path) -> None:
    folder = tiny.saved(tiny.stable_diffusion(), tmp_path / "published")
    (folder / "pruned.ckpt").write_bytes(b"PK\x03\x04 not even a file")
    (folder / "pruned.yaml").write_text("model: {}")
    assert list(ldmkit.load(folder).conditioners) == ["text"]
