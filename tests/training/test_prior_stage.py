"""A prior trains with the `denoiser` stage: the codec's encoder, which is frozen, makes embeddings of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from ldmkit_codecs.embedding import EmbeddingCodec
from ldmkit_miniworld.vocabulary import CLASSES
from ldmkit_training.before.recipe import parse_recipe
from ldmkit_training.loop.runfolder import MODEL

import ldmkit
from ldmkit.models.saving import save_part

DIM = 6
ENCODER: dict[str, Any] = {
    "width": 16, "layers": 1, "heads": 2, "mlp": 16, "edge": 16, "patch": 4, "projection": DIM,
    "pictures": {"shortest": 16, "crop": [16, 16]},
}  # fmt: skip


def codec() -> EmbeddingCodec:
    """With the statistics of a few pictures, as a script makes it before the recipe."""
    torch.manual_seed(0)
    spec = {"type": "picture-embedding", "config": {"dim": DIM, "encoder": ENCODER}}
    made = EmbeddingCodec({"dim": DIM, "conditioner": spec}).eval()  # type: ignore[arg-type]
    pictures = torch.rand(32, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    made.fit(made.embeddings(pictures))
    return made


def recipe(tmp_path: Path, *overrides: str) -> Any:
    folder = save_part("codec", codec(), tmp_path / "codec")
    label = {"n_classes": len(CLASSES) + 1, "dim": 8, "null_class": len(CLASSES), "names": list(CLASSES)}
    prior = {"channels": DIM, "width": 16, "layers": 1, "heads": 2, "context_dim": 8, "length": 1, "vector_dim": None}
    data = tiny.denoiser_data(tmp_path / "run", *overrides)
    data["model"] = {
        "codec": {"from": str(folder)},
        "denoiser": {"type": "prior", "config": prior},
        "process": {"type": "discrete", "config": {"schedule": "cosine", "prediction": "x0"}},
        "conditioners": {"label": {"type": "label", "config": label}},
        "defaults": {"steps": 3, "grid": {"type": "linspace"}, "sampler": {"type": "ddpm"}},
    }
    return parse_recipe(data)


def test_a_prior_is_trained_saved_and_drawn(tmp_path: Path) -> None:
    made = recipe(tmp_path, "steps=8")
    tiny.train(made)
    pipe = ldmkit.load(tmp_path / "run" / MODEL)
    before = codec()
    assert pipe.denoiser.latent_axes == 0 and pipe.defaults.size is None
    for name, value in before.state_dict().items():
        assert torch.equal(pipe.codec.state_dict()[name], value), name
    out = pipe({"label": 1}, seeds=[0, 1])
    assert out.images.shape == (2, DIM) and not torch.equal(out.images[0], out.images[1])


def test_previews_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ldmkit.SpecError, match="no pictures to show") as caught:
        tiny.train(recipe(tmp_path, "previews={every: 2, count: 1}"))
    assert caught.value.where == "previews"


def test_pictures_become_latents_of_unit_variance() -> None:
    made = codec()
    pictures = torch.rand(32, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = made.encode(pictures)
    assert latents.shape == (32, DIM) and made.embeds
    assert latents.mean(0).abs().max() < 1e-5 and (latents.std(0, correction=0) - 1).abs().max() < 1e-5
    assert (made.decode(latents) - made.embeddings(pictures)).abs().max() < 1e-5
    assert not any(parameter.requires_grad for parameter in made.parameters())


def test_an_encoder_of_another_width_or_kind_is_refused() -> None:
    for spec in (
        {"type": "picture-embedding", "config": {"dim": DIM + 1}},
        {"type": "clip-image", "config": {**ENCODER}},
    ):
        with pytest.raises(ldmkit.CompositionError, match="encoder") as caught:
            EmbeddingCodec({"dim": DIM, "conditioner": spec})  # type: ignore[arg-type]
        assert caught.value.code == "compose.encoder-mismatch"
    with pytest.raises(ldmkit.CompositionError, match="no encoder"):
        EmbeddingCodec({"dim": DIM}).embeddings(torch.zeros(1, 3, 8, 8))  # type: ignore[arg-type]
