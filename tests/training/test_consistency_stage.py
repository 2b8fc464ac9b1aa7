"""Training a consistency decoder: what a step compares, what it learns, what is saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_codecs.consistency import ConsistencyCodec
from ldmkit_codecs.kl import KLCodec, KLConfig
from ldmkit_codecs.noise_table import noise_table
from ldmkit_miniworld.world import World
from ldmkit_training.stages.consistency.section import ConsistencyObjective, ConsistencySection
from ldmkit_training.stages.consistency.stage import ConsistencyStage, ConsistencyTurn, pseudo_huber
from torch import Tensor

import ldmkit
from ldmkit import Batch, Draws
from ldmkit.models.saving import save_part
from ldmkit.testing import check_stage

KL = {"widths": [4, 8], "norm_groups": 2, "blocks": 1, "z_channels": 4, "mid_attention": "none", "scale": 20.0}
UNET = {"channels": 3, "in_channels": 7, "widths": [16], "blocks": 1, "norm_groups": 4, "heads": 1, "mid": "single"}
STEPS = 60


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("codec")
    save_part("codec", KLCodec(KLConfig.of(KL)), folder / "codec")
    return folder


def stage(folder: Path, objective: dict[str, Any] | None = None, **model: Any) -> ConsistencyStage:
    torch.manual_seed(0)
    section = ConsistencySection.of({"codec": {"from": "codec"}, "config": {"unet": UNET}, **model})
    return ConsistencyStage(section, ConsistencyObjective.of(objective or {}), folder, STEPS)


def batch(step: int, rows: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(rows, 3, 8, 8, generator=generator) * 1.6 - 0.8
    return Batch(
        tuple(map(str, range(rows))), images, None, None, [{}] * rows, (8, 8), Draws(0, step, tuple(range(rows)))
    )


def test_the_kit_accepts_the_stage() -> None:
    check_stage(ConsistencyStage).require()


def test_levels_double_to_the_last(codec: Path) -> None:
    turn = stage(codec, {"levels": [2, 20]}).turn
    assert [turn.levels(step) for step in range(0, STEPS, 12)] == [2, 4, 8, 16, 20]
    assert turn.levels(10**30) == 20


def test_one_level_is_regression_to_the_picture(codec: Path) -> None:
    made = stage(codec, {"levels": [1, 1]})
    given, own = batch(0), made.codec
    assert given.images is not None
    noise, t = given.draws.normal("noise", (3, 8, 8)), torch.full((8,), 1008)
    table = noise_table(1024, 0.5)
    x = table.signal[1008] * given.images + table.noise[1008] * noise
    with torch.no_grad():
        estimate = own.estimate(x, t, own.condition(own.encode(given.images)))
    assert torch.allclose(made.turn(given, 0).total, pseudo_huber(estimate, given.images, 0.00054).mean())


def test_a_step_compares_neighbours_with_the_same_noise(codec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = stage(codec, {"levels": [4, 4]}), []
    own = made.codec.estimate

    def estimate(x: Tensor, t: Tensor, condition: Any) -> Tensor:
        seen.append((x, t))
        return own(x, t, condition)

    monkeypatch.setattr(made.codec, "estimate", estimate)
    made.turn(batch(0), 0)
    (x, t), (y, below) = seen
    assert set((t - below).tolist()) == {252} and set(t.tolist()) <= {252, 504, 756, 1008}
    table, images = noise_table(1024, 0.5), batch(0).images

    def noise(z: Tensor, at: Tensor) -> Tensor:
        return (z - table.rows("signal", at, z) * images) / table.rows("noise", at, z)

    torch.testing.assert_close(noise(x, t), noise(y, below), rtol=0, atol=1e-2)


def scenes(split: str, first: int, rows: int = 6) -> Batch:
    """Pictures of the miniature world, of which the bundled codec's latents tell much."""
    world = World(32)
    images = [torch.from_numpy(world.sample(split, first + row).image) for row in range(rows)]
    return replace(batch(first, rows), images=torch.stack(images).permute(0, 3, 1, 2) / 127.5 - 1, size=(32, 32))


def test_it_learns_to_read_latents_and_is_saved_with_its_encoder(tmp_path: Path) -> None:
    made = stage(tmp_path, {"levels": [1, 2]}, codec={"from": "miniworld"})
    before = made.validate([scenes("validation", 0)])
    optimiser = torch.optim.AdamW(made.turn.parameters(), lr=5e-3)
    for step in range(STEPS):
        optimiser.zero_grad()
        made.turn(scenes("train", 6 * step), step).total.backward()
        optimiser.step()
    after = made.validate([scenes("validation", 0)])
    assert after["psnr"] > before["psnr"] + 3, (before, after)
    made.save(tmp_path / "model")
    saved, theirs = ldmkit.load_codec(tmp_path / "model"), ldmkit.load_codec("miniworld")
    images = scenes("test", 0).images
    assert images is not None and isinstance(saved, ConsistencyCodec)
    assert torch.equal(saved.encode(images), theirs.encode(images))
    again = stage(tmp_path, codec={"from": "miniworld"}, start="model")
    assert again.validate([scenes("validation", 0)]) == after


def test_codecs_without_a_kl_encoder_are_refused(codec: Path) -> None:
    with pytest.raises(ldmkit.CompositionError) as error:
        stage(codec, codec={"type": "identity"})
    assert error.value.code == "compose.not-kl"


def test_a_start_that_is_no_consistency_codec_is_refused(codec: Path) -> None:
    with pytest.raises(ldmkit.CompositionError) as error:
        stage(codec, start="codec")
    assert error.value.code == "compose.not-consistency"


def test_the_turn_trains_the_decoder_alone(codec: Path) -> None:
    made = stage(codec)
    assert isinstance(made.turn, ConsistencyTurn)
    assert {name.partition(".")[0] for name, p in made.codec.named_parameters() if p.requires_grad} == {"decoder"}
