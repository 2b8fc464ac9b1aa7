"""Errors that count by masks, and noise that is not white: against arithmetic, and bit-equal where they are off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from data_sources import lines, png
from ldmkit_training.before.opening import open_recipe
from ldmkit_training.before.recipe import Recipe
from ldmkit_training.data.batches import Batches
from ldmkit_training.loop.devices import open_accelerator
from ldmkit_training.stages.denoiser.noises import PyramidNoise, mask_weights, training_noise
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from torch.nn import functional
from toys import ToyStage, toy_batch

from ldmkit import CompositionError, Draws, InputError, SpecError
from ldmkit.run.loss import predict, prediction_errors

DRAWS = Draws(3, 5, tuple(range(64)))
SHAPE = (4, 8, 6)


def test_noise_is_white_and_bit_equal_where_nothing_is_asked_for() -> None:
    assert torch.equal(training_noise(DRAWS, SHAPE), DRAWS.normal("noise", SHAPE))


def test_an_offset_is_one_number_a_channel() -> None:
    noise = training_noise(DRAWS, SHAPE, offset=0.1)
    added = noise - DRAWS.normal("noise", SHAPE)
    # as diffusers' example writes it: noise += offset * randn(B, C, 1, 1)
    wanted = 0.1 * DRAWS.normal("noise-offset", (4, 1, 1))
    torch.testing.assert_close(added, wanted.expand_as(added), atol=1e-6, rtol=0)  # float32 sums of numbers about 3
    assert 0.08 < float(wanted.std()) < 0.12  # of 256 numbers
    other = training_noise(Draws(3, 6, DRAWS.rows), SHAPE, offset=0.1) - Draws(3, 6, DRAWS.rows).normal("noise", SHAPE)
    assert not torch.allclose(added, other)


def test_a_pyramid_has_unit_deviation_and_more_of_large_scales() -> None:
    white, pyramid = DRAWS.normal("noise", SHAPE), training_noise(DRAWS, SHAPE, pyramid=PyramidNoise(discount=0.8))
    torch.testing.assert_close(pyramid.flatten(1).std(1), torch.ones(64))
    by_hand = white
    for level, size in ((1, (4, 3)), (2, (2, 1)), (3, (1, 1))):
        small = DRAWS.normal(f"noise-level-{level}", (4, *size))
        by_hand = by_hand + 0.8**level * functional.interpolate(small, SHAPE[1:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(pyramid, by_hand / by_hand.flatten(1).std(1)[:, None, None, None])
    means = [noise.mean((2, 3)).std() for noise in (white, pyramid)]
    assert means[1] > 2 * means[0]
    one = training_noise(DRAWS, SHAPE, pyramid=PyramidNoise(levels=1)) - 0
    assert not torch.allclose(one, pyramid)


@pytest.mark.parametrize("rows", [1, 3])
def test_noise_of_a_row_does_not_depend_on_its_batch(rows: int) -> None:
    whole = training_noise(DRAWS, SHAPE, 0.1, PyramidNoise())
    part = training_noise(Draws(3, 5, tuple(range(2, 2 + rows))), SHAPE, 0.1, PyramidNoise())
    torch.testing.assert_close(part, whole[2 : 2 + rows], atol=1e-6, rtol=0)


def test_weights_of_masks() -> None:
    mask = torch.zeros(1, 4, 4)
    mask[:, :2, :3] = 1
    assert mask_weights([mask, None], (2, 2), 0.0)[:, 0].tolist() == [[[1, 0.5], [0, 0]], [[1, 1], [1, 1]]]
    torch.testing.assert_close(mask_weights([mask], (2, 2), 0.2)[0, 0], torch.tensor([[1, 0.6], [0.2, 0.2]]))


def test_a_turn_counts_errors_by_their_masks() -> None:
    batch = toy_batch(0, 4)
    masks = [np.zeros((8, 8), np.uint8) for _ in range(3)]
    masks[0][:, :4], masks[1][:] = 255, 255
    inputs = [{**row, "area": mask} for row, mask in zip(batch.inputs, [*masks, masks[2]], strict=True)]
    inputs[3].pop("area")
    masked = batch.__class__(batch.ids, batch.images, None, None, inputs, batch.size, batch.draws)

    def loss(given: Any, **fields: Any) -> Any:
        torch.manual_seed(0)
        stage = ToyStage(objective=DenoiserObjective.of(fields))
        return stage, stage.turn(given, 0).total

    stage, plain = loss(batch)
    section = {"input": "area", "outside": 0.25}
    assert torch.equal(plain, loss(masked, mask=section | {"outside": 1.0})[1]), "outside 1 is no mask, bit for bit"
    _, found = loss(masked, mask=section)
    x0, turn = stage.turn.latents(batch), stage.turn
    noise, process = batch.draws.normal("noise", x0.shape[1:]), stage.pipeline.process
    sigma = turn.objective.times.sigmas(process, batch.draws)
    context = turn.context(turn.conditioning(batch))
    predicted = predict(stage.pipeline.denoiser, process, x0, context, noise=noise, sigma=sigma)
    errors = (predicted - process.target(x0, noise, sigma)).square()
    assert torch.equal(prediction_errors(predicted, process, x0, noise=noise, sigma=sigma), errors.flatten(1).mean(1))
    weights = torch.full((4, 1, 8, 8), 0.25)
    weights[0, :, :, :4], weights[1], weights[3] = 1, 1, 1
    torch.testing.assert_close(found, (errors * weights).mean())


def recipe(tmp_path: Path, *overrides: str, mask: dict[str, Any] | None = None, **data: Any) -> Recipe:
    """Pictures whose masks are their own bright halves, at twice their resolution."""
    (tmp_path / "d/m").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(8):
        image = np.zeros((20, 28, 3), np.uint8)
        image[:, : 14 + number // 2] = 255
        (tmp_path / f"d/{number}.png").write_bytes(png(image))
        (tmp_path / f"d/m/{number}.png").write_bytes(png(image[..., 0].repeat(2, 0).repeat(2, 1)))
        rows.append({"file_name": f"{number}.png", "label": "snow", "area": f"m/{number}.png"})
    lines(tmp_path / "d/metadata.jsonl", *rows)
    made = tiny.denoiser_data(tmp_path / "run", "data.validation=null", "validation=null", *overrides)
    made["data"] |= {"train": {"type": "folder", "config": {"folder": "d"}}, **data}
    made["objective"]["mask"] = mask or {"input": "area"}
    return tiny.parse_recipe(made)


MOVES = [{"fit": "random-crop", "mirror": 0.5}, {"fit": "crop"}, {"fit": "resize", "mirror": 0.5},
         {"buckets": {"step": 4}, "mirror": 0.5, "fit": "random-crop"}]  # fmt: skip


@pytest.mark.parametrize("moves", MOVES, ids=str)
def test_masks_move_with_their_pictures(tmp_path: Path, moves: dict[str, Any]) -> None:
    made = recipe(tmp_path, **moves)
    stage, train, _ = open_recipe(made, tmp_path, open_accelerator())
    batches = Batches(train, made.data, seed=0, names=stage.inputs)
    for step in range(6):
        [batch] = batches.at(step)
        assert batch.images is not None
        weights = stage.turn.weights(batch, batch.images)  # type: ignore[attr-defined]
        # the edge falls on the same columns, to a pixel's share: the picture's is smooth, the mask's is not
        assert float((weights - (batch.images[:, :1] + 1) / 2).abs().mean()) < 0.05
        assert float(weights.min()) == 0 and float(weights.max()) == 1


def test_a_masked_run_resumes_and_cached_latents_have_their_masks(tmp_path: Path) -> None:
    base = {"fit": "crop", "held_out": 2}
    plan = ("schedule={type: constant}", "previews={every: 2, count: 2, steps: 2}", "validation={every: 2}")
    tiny.train(recipe(tmp_path, *plan, "steps=4", **base), tmp_path)
    tiny.train(recipe(tmp_path, *plan, "steps=2", f"out={tmp_path / 'two'}", **base), tmp_path)
    tiny.train(recipe(tmp_path, *plan, "steps=4", f"out={tmp_path / 'two'}", **base), tmp_path)
    tiny.assert_same(tiny.tensors(tmp_path / "run/model"), tiny.tensors(tmp_path / "two/model"))
    kept = {**base, "cache": {"folder": "kept"}}
    tiny.train(recipe(tmp_path, *plan, "steps=4", f"out={tmp_path / 'kept-run'}", **kept), tmp_path)
    tiny.assert_same(tiny.tensors(tmp_path / "run/model"), tiny.tensors(tmp_path / "kept-run/model"))


def test_masks_that_cannot_be_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        tiny.train(recipe(tmp_path, mask={"input": "aera"}), tmp_path)
    assert caught.value.code == "spec.no-mask" and "area" in str(caught.value.fits)
    with pytest.raises(CompositionError, match="the model reads the input 'label'"):
        tiny.train(recipe(tmp_path, mask={"input": "label"}), tmp_path)
    with pytest.raises(SpecError, match="do not lie on their pictures"):
        tiny.train(recipe(tmp_path, moves={"area": False}), tmp_path)
    (tmp_path / "d/m/3.png").unlink()
    made = recipe(tmp_path)
    (tmp_path / "d/m/3.png").unlink()
    with pytest.raises(InputError, match=r"3\.png"):
        tiny.train(made, tmp_path)


def test_min_snr_and_p2_at_zero_terminal_snr() -> None:
    """min(SNR, 5) / (SNR + 1) and (k + SNR)^-1 SNR / (SNR + 1) on v, also where SNR comes to nothing."""
    import ldmkit

    process = ldmkit.get("process", "discrete")(prediction="v", zero_terminal_snr=True)
    last = process.sigma(1 - 1e-12)
    for fields, printed in (({"type": "min-snr"}, lambda s: min(s, 5) / (s + 1)),
                            ({"type": "p2"}, lambda s: s / (1 + s) / (s + 1))):  # fmt: skip
        weighting = DenoiserObjective.of({"weighting": fields}).weighting
        for sigma in (0.1, 1.0, 20.0, last):
            assert weighting.factor(process, sigma) == pytest.approx(printed(1 / sigma**2), rel=1e-9, abs=1e-12)
