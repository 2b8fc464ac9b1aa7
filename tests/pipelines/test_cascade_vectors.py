"""A prior over embeddings, and pictures of them: parts of another distribution in a cascade, the way unCLIP works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
from fake_distributions import Distribution
from vector_parts import Embedding, Prior

import ldmkit

ENTRY_POINTS = """[ldmkit.codecs]
embedding = vector_parts:Embedding
[ldmkit.denoisers]
prior = vector_parts:Prior
"""
PROCESS = ldmkit.get("process", "discrete")(prediction="v")
DIM = 6


@pytest.fixture(autouse=True)
def installed(distribution: Distribution) -> None:
    distribution("vector-parts", ENTRY_POINTS)


def prior() -> ldmkit.Pipeline:
    torch.manual_seed(0)
    label = {"n_classes": 6, "dim": 3, "null_class": 5, "emit": "vector"}
    return ldmkit.Pipeline.of(
        codec=Embedding().eval(),
        denoiser=Prior().eval(),
        process=PROCESS,
        conditioners={"label": tiny_parts.part("conditioner", "label", label)},
        defaults={"steps": 4, "grid": {"type": "trailing"}},
    )


def pictures(dim: int = DIM) -> ldmkit.Pipeline:
    given = {"kind": "vector", "dim": dim}
    return ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3, None, vector="mlp", vector_dim=dim),
        process=PROCESS,
        conditioners={"embedding": tiny_parts.part("conditioner", "given", given)},
        defaults={"steps": 3, "size": (8, 8), "grid": {"type": "trailing"}},
    )


def cascade(source: str = "prior", **stages: Any) -> ldmkit.Cascade:
    both = {"prior": prior(), "decoder": pictures()} | stages
    return ldmkit.Cascade.of(both, {"decoder": {"inputs": {"embedding": source}}})


def test_an_embedding_becomes_a_picture(tmp_path: Path) -> None:
    made = cascade()
    out = made({"label": 2}, seeds=[5, 6])
    embeddings = out.stages["prior"].images
    assert embeddings.shape == (2, DIM) and out.images.shape == (2, 3, 8, 8)
    seeds = [ldmkit.stage_seed(seed, "decoder") for seed in (5, 6)]
    alone = made.stages["decoder"]([{"embedding": row} for row in embeddings], seeds=seeds)
    assert torch.equal(out.images, alone.images)
    loaded = ldmkit.Cascade.load(made.save(tmp_path / "unclip"))
    one = loaded({"label": 2}, seeds=[5])
    assert torch.equal(ldmkit.replay(loaded, one.recipes[0]).images, one.images)
    vector = one.stages["prior"].save(tmp_path / "prior.safetensors")[0]
    assert torch.equal(ldmkit.replay(loaded, ldmkit.read_recipe(vector)).images, one.stages["prior"].images)


def test_an_embedding_of_ones_own() -> None:
    made = cascade()
    out = made({"label": 2}, seeds=[5])
    embedding = out.stages["prior"].images[0]
    again = made({"embedding": embedding}, seeds=[5], first="decoder")
    assert torch.equal(again.images, out.images)
    mixed = made([{"embedding": embedding}, {"embedding": embedding.flip(0)}], seeds=[5, 5], first="decoder")
    assert not torch.equal(mixed.images[0], mixed.images[1])


def test_latents_are_handed_on_standardised() -> None:
    out = cascade("prior.latents")({"label": 2}, seeds=[5])
    made = cascade()
    latents = out.stages["prior"].latents
    assert not torch.allclose(latents, out.stages["prior"].images)
    alone = made({"embedding": latents[0]}, seeds=[5], first="decoder")
    assert torch.equal(out.images, alone.images)


def test_an_embedding_of_another_width() -> None:
    with pytest.raises(ldmkit.CompositionError) as caught:
        cascade(decoder=pictures(dim=7))
    assert caught.value.code == "compose.wrong-handover"
    assert "[6]" in str(caught.value) and "(7,)" in str(caught.value)


def test_a_vector_is_nothing_to_start_a_picture_from() -> None:
    both = {"prior": prior(), "decoder": pictures()}
    with pytest.raises(
        ldmkit.CompositionError, match=r"'decoder' starts from data of .*'prior' has 6 channels"
    ) as caught:
        ldmkit.Cascade.of(both, {"decoder": {"start": {"stage": "prior"}}})
    assert caught.value.code == "compose.wrong-handover"
