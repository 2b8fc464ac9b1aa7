"""A cascade 8 -> 16 whose second stage reads the first one's picture with noise on it (Ho et al. 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch

import ldmkit
from ldmkit.testing import check_conditioner

COSINE = {"type": "discrete", "config": {"schedule": "cosine"}}
PROCESS = ldmkit.get("process", "discrete")(schedule="cosine", prediction="v")
TOLERANCE = 1e-5
"""Of pixels in [0, 1]: a convolution of a larger batch sums in another order; measured up to 2e-6 on these networks."""


def noised(**config: Any) -> Any:
    return ldmkit.get("conditioner", "noised-picture")(config)


def level(**config: Any) -> Any:
    return ldmkit.get("conditioner", "noise-level")(config)


def larger(**config: Any) -> ldmkit.Pipeline:
    return ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3, None, in_channels=6, vector="timestep"),
        process=PROCESS,
        conditioners={"low": noised(**config), "low-level": level(**config)},
        wiring={"low-level": {"input": "low"}},
        defaults={"steps": 3, "grid": {"type": "trailing"}},
    )


@pytest.fixture(scope="module")
def cascade() -> ldmkit.Cascade:
    base = tiny_parts.class_pipeline(grid={"type": "trailing"}).with_(process=PROCESS)
    return ldmkit.Cascade.of({"base": base, "up": larger()}, {"up": {"inputs": {"low.image": "base"}}})


@pytest.mark.parametrize("name", ["noised-picture", "noise-level"])
def test_the_kit(name: str) -> None:
    check_conditioner(ldmkit.get("conditioner", name)).require()


@pytest.mark.parametrize("timestep", [0, 1, 250, 749, 999])
def test_against_the_published_second_stage(timestep: int) -> None:
    """DeepFloyd IF: enlarged bilinearly with aligned corners, then noise of the cosine table at a timestep."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    picture = torch.rand(1, 3, 8, 6, generator=torch.Generator().manual_seed(1)) * 2 - 1
    large = torch.nn.functional.interpolate(picture, size=(16, 12), mode="bilinear", align_corners=True)
    noise = torch.randn(3, 16, 12, generator=ldmkit.seeded(7, "augment", 0))[None]
    kept = float((1 - scheduler.betas.double()).cumprod(0)[timestep])  # its own table of them is float32
    wanted = kept**0.5 * large + (1 - kept) ** 0.5 * noise
    assert torch.allclose(scheduler.add_noise(large, noise, torch.tensor([timestep])), wanted, rtol=0, atol=1e-4)
    value = {"image": picture[0], "level": timestep / 999, "seed": 7}
    config = {"method": "bilinear", "align_corners": True, "process": COSINE}
    part = noised(**config)
    made = part([part.parse(value, "low")]).value
    assert torch.allclose(made, wanted, rtol=0, atol=2e-6)  # of float32 sums of three terms of about 1
    told = level(process=COSINE)
    assert told([told.parse(value, "low")]).value.item() == pytest.approx(timestep, abs=1e-3)


def test_noise_follows_from_the_seed_of_the_row() -> None:
    part = noised()
    one = part.parse(torch.zeros(3, 4, 4), "low")
    first, again, other = (part.drawn(one, seed, training=False) for seed in (1, 1, 2))
    assert first == again and first.level == part.config.level and (first.seed, other.seed) == (1, 2)
    rows = part([first, other]).value
    assert torch.equal(rows[:1], part([again]).value) and not torch.equal(rows[0], rows[1])
    given = part.parse({"image": torch.zeros(3, 4, 4), "level": 0.7, "seed": 5}, "low")
    kept = part.drawn(given, 1, training=True)
    assert (kept.level, kept.seed) == (0.7, 5)


def test_training_draws_levels_from_the_whole_range() -> None:
    part = noised(levels=[0.2, 0.6])
    one = part.parse(torch.zeros(3, 4, 4), "low")
    levels = torch.tensor([part.drawn(one, seed, training=True).level for seed in range(400)])
    assert 0.2 <= float(levels.min()) < 0.21 and 0.59 < float(levels.max()) <= 0.6
    assert float(levels.mean()) == pytest.approx(0.4, abs=0.02)  # three deviations of the mean of 400
    draws = ldmkit.Draws(seed=3, step=5, rows=(0, 1, 2))
    assert ldmkit.Draws(seed=3, step=5, rows=(1,)).seeds("conditions")[0] == draws.seeds("conditions")[1]
    pipe = larger()
    inputs = [{"low": torch.zeros(3, 4, 4)}] * 3
    drawn = pipe.conditioning(inputs, size=(8, 8), draws=draws).view(frozenset())
    assert len(set(drawn["vector"].value.flatten().tolist())) == 3
    plain = pipe.conditioning(inputs, size=(8, 8)).view(frozenset())
    assert len(set(plain["vector"].value.flatten().tolist())) == 1


def test_plane_and_level_agree(cascade: ldmkit.Cascade) -> None:
    """Both conditioners read what the first one decides, also where their configs differ."""
    pipe = larger(level=0.3)
    odd = pipe.with_(conditioners={"low-level": level(level=0.9)})
    picture = torch.zeros(3, 4, 4)
    assert torch.equal(odd({"low": picture}).images, pipe({"low": picture}).images)
    assert not torch.equal(pipe({"low": {"image": picture, "level": 0.31}}).images, pipe({"low": picture}).images)


def test_the_second_stage_by_hand(cascade: ldmkit.Cascade) -> None:
    out = cascade({"label": 2, "low": {"level": 0.4}}, seeds=[3])
    assert out.stages["base"].images.shape[-2:] == (8, 8) and out.images.shape[-2:] == (16, 16)
    low = {"image": out.stages["base"].images[0] * 2 - 1, "level": 0.4}
    alone = cascade.stages["up"]({"low": low}, seeds=[ldmkit.stage_seed(3, "up")])
    assert torch.equal(out.images, alone.images)
    assert torch.equal(cascade({"low": low}, seeds=[3], first="up").images, out.images)
    own = {"up": {"inputs": {"low": {"level": 0.4}}}}
    assert torch.equal(cascade({"label": 2}, seeds=[3], stages=own).images, out.images)
    assert not torch.equal(cascade({"label": 2}, seeds=[3]).images, out.images)


def test_a_batch_is_each_by_itself(cascade: ldmkit.Cascade) -> None:
    rows = [{"label": 1, "low": {"level": 0.5}}, {"label": 3}]
    together = cascade(rows, seeds=[5, 6])
    for i, (row, seed) in enumerate(zip(rows, [5, 6], strict=True)):
        assert torch.allclose(cascade(row, seeds=seed).images[0], together.images[i], rtol=0, atol=TOLERANCE)


def test_saved_replayed(cascade: ldmkit.Cascade, tmp_path: Path) -> None:
    loaded = ldmkit.Cascade.load(cascade.save(tmp_path / "model"))
    out = loaded({"label": 2, "low": {"level": 0.4}}, seeds=[3])
    recipe = ldmkit.read_recipe(out.save(tmp_path / "a.png")[0])
    assert recipe["stages"]["up"]["inputs"] == {"low": {"level": 0.4, "seed": None}}
    assert torch.equal(ldmkit.replay(loaded, recipe).images, out.images)
    assert torch.equal(ldmkit.replay(cascade, recipe).images, out.images)


def test_refusals(cascade: ldmkit.Cascade) -> None:
    for inputs, code in (
        ({"label": 1, "low": torch.zeros(3, 8, 8)}, "input.bound-input"),
        ({"label": 1, "low": {"image": torch.zeros(3, 8, 8)}}, "input.bound-input"),
        ({"label": 1, "low": {"level": 2}}, "input.invalid"),
        ({"label": 1, "low": {"levle": 0.2}}, "input.unknown-key"),
    ):
        with pytest.raises(ldmkit.InputError) as caught:
            cascade(inputs)
        assert caught.value.code == code and "stage 'up'" in str(caught.value)
    with pytest.raises(ldmkit.InputError) as caught:
        cascade({"low": {"level": 0.3}}, first="up")
    assert caught.value.code == "input.missing-condition"
    for config in (
        {"levels": [0.5, 0.2]},
        {"method": "bicubic", "align_corners": True},
        {"process": {"type": "dicrete"}},
    ):
        with pytest.raises(ldmkit.LdmkitError):
            noised(**config)
