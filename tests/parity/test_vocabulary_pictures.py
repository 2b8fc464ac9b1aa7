"""Enlarged vocabularies: pictures of a saved pipeline equal to the oracle library's, there and back.

Tolerance: 1e-4 of the pictures' range, float32 on both sides; a token that is split or moved shows at 1e-3 or more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from ldmkit_checkpoints.diffusers.export import save_diffusers

import ldmkit
from ldmkit.run.noise import Noise

sys.path.append(str(Path(__file__).parents[1] / "pipelines"))
import tiny_diffusers as tiny

TEXTS = ("the <cat> house", "<cat>  <dog>!", "a<cat>b")
NEGATIVE = "red <dog>"


def towers(pipe: Any) -> list[tuple[Any, Any]]:
    """Tokenizers with their text encoders."""
    names = [("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")]
    return [(getattr(pipe, a), getattr(pipe, b)) for a, b in names if getattr(pipe, a, None) is not None]


def loud(pipe: Any) -> Any:
    """Embeddings with which pictures depend on every token."""
    generator = torch.Generator().manual_seed(3)
    for _, model in towers(pipe):
        table = model.get_input_embeddings().weight
        table.data = torch.randn(table.shape, generator=generator)
    return pipe


def inversion(pipe: Any) -> None:
    pipe.load_textual_inversion(torch.randn(32), token="<cat>")


def several_vectors(pipe: Any) -> None:
    pipe.load_textual_inversion(torch.randn(3, 32), token="<cat>")
    pipe.load_textual_inversion(torch.randn(32), token="<dog>")


def added(pipe: Any) -> None:
    for tokenizer, model in towers(pipe):
        tokenizer.add_tokens(["<cat>", "<dog>"])
        model.resize_token_embeddings(len(tokenizer))


def rounded_up(pipe: Any) -> None:
    pipe.tokenizer.add_tokens(["<cat>"])
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer), pad_to_multiple_of=64)


def own_padding(pipe: Any) -> None:
    pipe.tokenizer.add_special_tokens({"pad_token": "<pad>"})
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer))


CASES = [(tiny.stable_diffusion, way) for way in (inversion, several_vectors, added, rounded_up, own_padding)]


@pytest.mark.parametrize(("make", "way"), [*CASES, (tiny.stable_diffusion_xl, added)])
def test_pictures(make: Callable[[], Any], way: Callable[[Any], None], tmp_path: Path) -> None:
    pipe = make()
    torch.manual_seed(1)
    way(loud(pipe))
    folder = tiny.saved(loud(pipe) if way is added else pipe, tmp_path / "theirs")
    ours = ldmkit.load(folder)
    written = type(pipe).from_pretrained(save_diffusers(ours, tmp_path / "ours"))
    again = ldmkit.load(ours.save(tmp_path / "native"))
    written.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "guidance_scale": 4.0, "height": 32, "width": 32, "output_type": "np"}
    for text in TEXTS:
        start = Noise([0], (4, 16, 16))(0, "start")
        want = pipe(text, negative_prompt=NEGATIVE, latents=start.clone(), **options).images
        back = written(text, negative_prompt=NEGATIVE, latents=start.clone(), **options).images
        assert np.abs(back - want).max() < 1e-4
        for (one, _), (other, _) in zip(towers(written), towers(pipe), strict=True):
            assert one(text).input_ids == other(text).input_ids
        for model in (ours, again):
            got = model({"text": text}, negative={"text": NEGATIVE}, steps=2, guidance=4.0).images
            assert np.abs(got.permute(0, 2, 3, 1).numpy() - want).max() < 1e-4


def test_a_vocabulary_beyond_the_embedding_is_refused(tmp_path: Path) -> None:
    pipe = tiny.stable_diffusion()
    pipe.tokenizer.add_tokens(["<cat>"])
    assert isinstance(pipe, diffusers.StableDiffusionPipeline)
    with pytest.raises(ldmkit.SourceError, match="id 55"):
        ldmkit.load(tiny.saved(pipe, tmp_path / "folder"))
