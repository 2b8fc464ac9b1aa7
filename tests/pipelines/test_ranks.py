"""Vectors and videos through everything that a picture goes through: samplers, training, saving, replay, the kit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
from fake_distributions import Distribution
from vector_parts import Embedding, Prior
from video_parts import Causal, Cube

import ldmkit
from ldmkit.replaying import replay
from ldmkit.run.recipe import read_recipe
from ldmkit.run.written import difference
from ldmkit.testing import check_codec, check_denoiser

ENTRY_POINTS = """[ldmkit.codecs]
embedding = vector_parts:Embedding
causal = video_parts:Causal
[ldmkit.denoisers]
prior = vector_parts:Prior
cube = video_parts:Cube
"""
CLASSES = {"label": 1}
SIZES: dict[str, Any] = {"vector": None, "video": (5, 8, 6)}
LATENTS = {"vector": (6,), "video": (4, 3, 2, 3)}
SHAPES = {"vector": (6,), "video": (3, 5, 8, 6)}
PARTS = {"vector": (Embedding, Prior), "video": (Causal, Cube)}


def pipeline(rank: str, prediction: str = "eps") -> ldmkit.Pipeline:
    torch.manual_seed(0)
    codec, denoiser = (cls() for cls in PARTS[rank])
    label = {"n_classes": 6, "dim": 3, "null_class": 5, "emit": "vector"}
    return ldmkit.Pipeline.of(
        codec=codec.eval(),
        denoiser=denoiser.eval(),
        process=ldmkit.get("process", "discrete")(prediction=prediction),
        conditioners={"label": tiny_parts.part("conditioner", "label", label)},
        defaults={"size": SIZES[rank], "steps": 4},
    )


@pytest.fixture(scope="module", params=list(PARTS))
def rank(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pipe(rank: str) -> ldmkit.Pipeline:
    return pipeline(rank)


@pytest.mark.parametrize("grid", [g for g in ldmkit.components("grid") if g not in ("explicit", "deepfloyd")])
@pytest.mark.parametrize("sampler", ldmkit.components("sampler"))
def test_any_sampler_with_any_grid(pipe: ldmkit.Pipeline, rank: str, sampler: str, grid: str) -> None:
    out = pipe(CLASSES, sampler=sampler, grid=grid, steps=3, guidance=1.5, seeds=(0, 1))
    assert out.images.shape == (2, *SHAPES[rank]) and out.latents.shape == (2, *LATENTS[rank])
    assert out.images.isfinite().all() and (out.latents[0] - out.latents[1]).abs().max() > 0.01


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_a_batch_is_as_many_runs(rank: str, prediction: str) -> None:
    pipe = pipeline(rank, prediction)
    options: dict[str, Any] = {"sampler": "ddpm", "guidance": 2.0}
    together = pipe([{"label": 1}, {"label": 2}], seeds=(3, 4), **options)
    for row in range(2):
        alone = pipe({"label": row + 1}, seeds=3 + row, **options)
        torch.testing.assert_close(alone.images[0], together.images[row], rtol=0, atol=1e-5)  # other batch, other GEMM


@pytest.mark.parametrize("prediction", ["eps", "x0"])
def test_a_few_steps_of_training_lower_the_loss(rank: str, prediction: str) -> None:
    """On data of one point per class, through `encode`, `conditioning` and `diffusion_loss`."""
    pipe = pipeline(rank, prediction)
    generator = torch.Generator().manual_seed(0)
    data = torch.rand(4, *SHAPES[rank], generator=generator) - 0.5
    x0 = pipe.encode(data)
    assert x0.shape == (4, *LATENTS[rank])
    inputs = [{"label": row} for row in range(4)]
    signals = pipe.conditioning(inputs, size=SIZES[rank] or ()).view()
    optimiser = torch.optim.Adam(pipe.denoiser.parameters(), 1e-2)
    sigma = [pipe.process.sigma(u) for u in (0.2, 0.4, 0.6, 0.8)]
    noise = torch.randn(x0.shape, generator=generator)
    losses = []
    for _ in range(30):
        loss = ldmkit.diffusion_loss(pipe.denoiser, pipe.process, x0, signals, noise=noise, sigma=sigma).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_saved_loaded_and_replayed(
    pipe: ldmkit.Pipeline, rank: str, distribution: Distribution, tmp_path: Path
) -> None:
    distribution("tiny-ranks", ENTRY_POINTS)
    loaded = ldmkit.load(pipeline(rank).save(tmp_path / "model"))
    out = loaded(CLASSES, seeds=(7, 8), guidance=2.0)
    assert torch.equal(out.images, pipe(CLASSES, seeds=(7, 8), guidance=2.0).images)
    suffix = "png" if rank == "video" else "safetensors"
    paths = out.save(tmp_path / f"drawn.{suffix}")
    assert [path.name for path in paths] == [f"drawn-0.{suffix}", f"drawn-1.{suffix}"]
    alone = loaded(CLASSES, seeds=8, guidance=2.0)
    [path] = alone.save(tmp_path / f"alone.{suffix}")
    recipe = read_recipe(path)
    assert recipe["size"] == list(SIZES[rank] or ()) and recipe == read_recipe(paths[1])
    again = replay(ldmkit.load(recipe["model"]), recipe)
    assert torch.equal(again.latents, alone.latents) and torch.equal(again.images, alone.images)
    assert difference(path, again.images[0], visual=out.visual) == 0
    assert difference(path, again.images[0] * 0.5, visual=out.visual) > 0


def test_starts_from_latents_and_outputs(pipe: ldmkit.Pipeline, rank: str) -> None:
    out, other = pipe(CLASSES, seeds=(0, 1)), pipe(CLASSES, seeds=(5, 6))
    shallow = pipe(CLASSES, seeds=(0, 1), steps=10, start={"image": out, "strength": 0.2})
    given = pipe(CLASSES, seeds=(0, 1), steps=10, start={"latents": out.latents, "strength": 0.2})
    assert torch.equal(shallow.images, given.images)
    assert (shallow.latents - out.latents).abs().mean() < (other.latents - out.latents).abs().mean()
    alone = pipe(CLASSES, seeds=1, steps=10, start={"latents": out.latents[1], "strength": 0.2})
    assert torch.equal(replay(pipe, alone.recipes[0]).images, alone.images)
    with pytest.raises(ldmkit.InputError, match="latent-shape"):
        pipe(CLASSES, start={"latents": torch.zeros(2, 2, 2)})
    with pytest.raises(ldmkit.InputError, match="start-rank"):
        pipe(CLASSES, start=torch.zeros(3, 8, 8))


def test_wrong_sizes_are_refused(pipe: ldmkit.Pipeline, rank: str) -> None:
    for size in ((8, 6), 8, (1, 2, 3, 4)):
        with pytest.raises(ldmkit.InputError, match="size-type"):
            pipe(CLASSES, size=size)
    with pytest.raises(ldmkit.InputError, match="size-axes"):
        ldmkit.Pipeline.of(
            codec=pipe.codec, denoiser=pipe.denoiser, process=pipe.process, defaults={"size": (8, 8), "steps": 4}
        )


def test_parts_of_different_ranks_do_not_fit() -> None:
    with pytest.raises(ldmkit.CompositionError, match="rank-mismatch"):
        ldmkit.Pipeline.of(codec=Causal({"channels": 6}), denoiser=Prior(), process=ldmkit.get("process", "discrete")())


def test_a_codec_s_ends_refuse_other_shapes(pipe: ldmkit.Pipeline) -> None:
    with pytest.raises(ldmkit.InputError, match="latent-shape"):
        pipe.decode(torch.zeros(1, pipe.codec.channels, 2, 2))
    with pytest.raises(ldmkit.InputError, match="data-shape"):
        pipe.encode(torch.zeros(1, 3, 8, 8))


def test_an_estimate_names_what_is_drawn(pipe: ldmkit.Pipeline, rank: str) -> None:
    told = str(pipe.prepare(CLASSES, seeds=(0, 1)).estimate)
    assert told.startswith({"vector": "2 vectors, ", "video": "2 videos of 5x8x6, "}[rank])


@pytest.mark.parametrize("cls", [Embedding, Causal])
def test_codecs_keep_the_contract(cls: Any) -> None:
    for example in cls.examples:
        found = check_codec(cls, example.config, trained=example.trained).require()
        assert sum(one.status == "passed" for one in found.outcomes) > 15


@pytest.mark.parametrize("cls", [Prior, Cube])
def test_denoisers_keep_the_contract(cls: Any) -> None:
    found = check_denoiser(cls).require()
    assert sum(one.status == "passed" for one in found.outcomes) > 20
