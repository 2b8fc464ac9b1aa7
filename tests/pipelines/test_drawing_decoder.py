"""A decoder that draws noise: seeded a picture, so that batch and order do not matter, and by all callers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
from drawing_parts import TwoStep
from fake_distributions import Distribution
from torch import Tensor
from typer.testing import CliRunner

import ldmkit
from ldmkit.cli.app import app
from ldmkit.contracts.work import Work
from ldmkit.files.pictures import read_picture, to_pil
from ldmkit.models.weights import write_safetensors
from ldmkit.replaying import replay
from ldmkit.run.estimate import GROUP
from ldmkit.run.noise import normal
from ldmkit.run.recipe import read_recipe
from ldmkit.testing import check_codec

CLASSES = {"label": 1}
ENTRY_POINTS = "[ldmkit.codecs]\ntwo-step = drawing_parts:TwoStep\n"
ROUNDING = {"rtol": 0.0, "atol": 1e-5}
"""Between a picture alone and in a batch: float32 sums in another order."""


def pipeline(codec: ldmkit.Codec | None = None) -> ldmkit.Pipeline:
    torch.manual_seed(0)
    return ldmkit.Pipeline.of(
        codec=(codec or TwoStep()).eval().requires_grad_(False),
        denoiser=tiny_parts.unet(4),
        process=ldmkit.get("process", "discrete")(),
        conditioners={"label": tiny_parts.label()},
        defaults={"size": (16, 16), "steps": 3},
    )


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    return pipeline()


def by_hand(pipe: ldmkit.Pipeline, latents: Tensor, seeds: list[int], size: tuple[int, int] = (16, 16)) -> Tensor:
    """What the run's pictures should be, by the definition of the noise."""
    rows = []
    for one, seed in zip(latents, seeds, strict=True):
        row = pipe.codec.decode_with(one[None], lambda i, seed=seed: normal(seed, "decode", i, (3, *size))[None])
        rows.append(((row + 1) / 2).clamp(0, 1)[0])
    return torch.stack(rows)


def test_pictures_are_decoded_with_the_noise_of_their_seeds(pipe: ldmkit.Pipeline) -> None:
    out = pipe(CLASSES, seeds=(3, 4, 5))
    torch.testing.assert_close(out.images, by_hand(pipe, out.latents, [3, 4, 5]), **ROUNDING)
    torch.testing.assert_close(pipe.decode(out.latents, seeds=(3, 4, 5)), out.images, **ROUNDING)
    assert (pipe.decode(out.latents, seeds=3)[1:] - out.images[1:]).abs().max() > 0.05
    plain = ((pipe.codec.decode(out.latents) + 1) / 2).clamp(0, 1)
    assert (plain - out.images).abs().max() > 0.05


def test_neither_batch_nor_order_matter(pipe: ldmkit.Pipeline) -> None:
    out, turned = pipe(CLASSES, seeds=(3, 4, 5)), pipe(CLASSES, seeds=(5, 4, 3))
    torch.testing.assert_close(turned.images.flip(0), out.images, **ROUNDING)
    for row, seed in enumerate((3, 4, 5)):
        torch.testing.assert_close(pipe(CLASSES, seeds=seed).images[0], out.images[row], **ROUNDING)


def test_groups_of_a_batch_get_their_own_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = TwoStep()
    monkeypatch.setattr(codec, "footprint", lambda *_: Work(GROUP // 2))
    pipe = pipeline(codec)
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    seeds = [9, 8, 7, 6, 5]
    torch.testing.assert_close(
        pipe.decode(latents, seeds=seeds, allow_large=True), by_hand(pipe, latents, seeds), **ROUNDING
    )


def test_neither_the_caller_s_generator_nor_earlier_draws_matter(pipe: ldmkit.Pipeline) -> None:
    torch.manual_seed(1)
    state, first = torch.get_rng_state(), pipe(CLASSES, seeds=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    pipe(CLASSES, seeds=9)
    assert torch.equal(pipe(CLASSES, seeds=3).images, first.images)


def test_sizes_that_do_not_fit_are_drawn_whole_and_cut(pipe: ldmkit.Pipeline) -> None:
    with pytest.warns(UserWarning, match="15x13 is not a multiple"):
        out = pipe(CLASSES, size=(15, 13), seeds=3)
    assert torch.equal(out.images, by_hand(pipe, out.latents, [3], (16, 14))[..., :15, :13])


def test_replay_is_exact(distribution: Distribution, tmp_path: Path) -> None:
    distribution("tiny-drawing", ENTRY_POINTS)
    pipe = ldmkit.load(pipeline().save(tmp_path / "model"))
    out = pipe(CLASSES, seeds=7)
    recipe = read_recipe(out.save(tmp_path / "drawn.png")[0])
    assert torch.equal(replay(ldmkit.load(recipe["model"]), recipe).images, out.images)


def test_what_a_mask_keeps_is_decoded_with_the_row_s_seed(pipe: ldmkit.Pipeline) -> None:
    latents = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(2))
    mask = torch.zeros(1, 16, 16)
    mask[..., 8:] = 1
    out = pipe(CLASSES, seeds=(3, 4), start={"latents": latents, "mask": mask, "strength": 0.9})
    wanted = by_hand(pipe, latents.expand(2, -1, -1, -1), [3, 4])
    torch.testing.assert_close(out.images[..., :8], wanted[..., :8], **ROUNDING)
    alone = pipe(CLASSES, seeds=4, start={"latents": latents, "mask": mask, "strength": 0.9})
    torch.testing.assert_close(alone.images[0], out.images[1], **ROUNDING)


def test_guidance_sees_the_pictures_of_the_rows_seeds(pipe: ldmkit.Pipeline) -> None:
    prepared = pipe.prepare(CLASSES, seeds=(3, 4))
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    seen = prepared.evaluate.decode(latents)
    torch.testing.assert_close(((seen + 1) / 2).clamp(0, 1), by_hand(pipe, latents, [3, 4]), **ROUNDING)
    assert torch.equal(prepared.evaluate.decode(latents), seen)
    views = prepared.evaluate.decode(torch.cat([latents, latents]))
    torch.testing.assert_close(views, torch.cat([seen, seen]), **ROUNDING)
    with pytest.raises(ldmkit.InputError, match="batch-mismatch"):
        prepared.evaluate.decode(torch.cat([latents, latents[:1]]))


def test_image_guidance_is_the_same_in_any_batch(pipe: ldmkit.Pipeline) -> None:
    target = torch.zeros(1, 3, 16, 16)
    image: Any = ldmkit.get("guidance", "image")
    together = pipe(CLASSES, seeds=(3, 4), guidance=image(target=target, scale=5.0))
    alone = pipe(CLASSES, seeds=4, guidance=image(target=target, scale=5.0))
    torch.testing.assert_close(alone.images[0], together.images[1], **ROUNDING)


def test_seeds_that_do_not_pair_up_with_rows_are_refused(pipe: ldmkit.Pipeline) -> None:
    with pytest.raises(ldmkit.InputError, match="batch-mismatch"):
        pipe.decode(torch.zeros(3, 4, 8, 8), seeds=(1, 2))


def test_tiles_get_their_parts_of_the_noise() -> None:
    """A decoder of 2x2 patches whose step sees one pixel more: tiles with an overlap give what the whole gives."""
    tiled: Any = ldmkit.get("codec", "tiled")
    torch.manual_seed(0)
    codec = TwoStep().eval()
    wrapped = tiled.wrap(codec, budget_mib=0.05, overlap=8, bytes_per_pixel=64.0)
    latents = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    assert wrapped.plan(64, 64, "decode").count > 1
    noise = {i: torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in range(2)}
    with torch.no_grad():
        whole, tiles = codec.decode_with(latents, noise.__getitem__), wrapped.decode_with(latents, noise.__getitem__)
        torch.testing.assert_close(tiles, whole, **ROUNDING)
        assert (codec.decode(latents) - whole).abs().max() > 0.1


def test_the_command_line_takes_the_seed(distribution: Distribution, tmp_path: Path) -> None:
    distribution("tiny-drawing", ENTRY_POINTS)
    pipe = pipeline()
    folder, latents = pipe.save(tmp_path / "model"), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    write_safetensors(tmp_path / "z.safetensors", {"latents": latents})
    for seed in ("0", "5"):
        out = tmp_path / f"{seed}.png"
        told = CliRunner().invoke(
            app, ["decode", str(folder), str(tmp_path / "z.safetensors"), "-o", str(out), "--seed", seed]
        )
        assert told.exit_code == 0, told.output
        [wanted] = to_pil(pipe.decode(latents, seeds=int(seed)))
        assert torch.equal(read_picture(out), read_picture(wanted))


def test_the_codec_keeps_the_contract() -> None:
    found = check_codec(TwoStep, TwoStep.examples[0].config, trained=False).require()
    assert any(one.check.name == "decode-noise" and one.status == "passed" for one in found.outcomes)
