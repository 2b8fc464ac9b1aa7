"""What a user does with original checkpoints beyond a plain call. Equality is exact unless a tolerance is stated."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from ldmkit_adapters.controlnet import ControlNet
from ldmkit_checkpoints.compvis import text_config
from ldmkit_codecs.tiled import TiledCodec
from ldmkit_denoisers.patched import PatchedDenoiser
from ldmkit_processes.guidance.classifier import ClassifierGuidance
from ldmkit_processes.guidance.image import ImageGuidance
from original_files import reduced, write
from original_inputs import CLIP_IDS, hole, picture
from original_models import MODELS, SMALL_CLIP, SMALL_OPEN
from torch import Tensor, nn

import ldmkit
from ldmkit.replaying import replay
from ldmkit.run.recipe import read_recipe

ROUNDING = 1e-4
"""Batches and single samples go through different kernels; of latents up to 5."""

NEGATIVE = [49406, 911, 49407]


@cache
def loaded(name: str, dtype: str | None = None) -> ldmkit.Pipeline:
    """A reduced model; shared, so nobody may change it."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        for key, value in SMALL_CLIP.items():
            patch.setitem(text_config._CLIP_L, key, value)
        patch.setitem(text_config.OPEN_CLIP, "ViT-H-14", SMALL_OPEN)
        path, config = write(reduced(MODELS[name]), Path(folder))
        return ldmkit.load(path, config=config, dtype=dtype)


def latents(pipe: ldmkit.Pipeline, inputs: Any, **options: Any) -> Tensor:
    return pipe(inputs, **{"steps": 2, "seeds": [1], **options}).latents


@pytest.mark.parametrize(
    ("name", "inputs", "words"),
    [
        ("semantic_synthesis512", {}, "'semantic' is required"),
        ("bsr_sr", {}, "'image' is required"),
        ("inpainting_big", {}, "'masked-image' is required"),
        ("inpainting_big", {"masked_image": 1}, "did you mean 'masked-image'"),
        ("inpainting_big", {"masked-image": {"image": picture((32, 32))}}, "mask"),
        ("sd1-inpaint", {"text": CLIP_IDS}, "'masked-image' is required"),
        ("cin256", {}, "'label' is required"),
        ("cin256", {"label": 1000}, "0 to 999"),
    ],
)
def test_missing_and_wrong_inputs(name: str, inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(ldmkit.InputError, match=words):
        loaded(name)(inputs, steps=1, size=32)


@pytest.mark.parametrize(("name", "inputs"), [("ffhq256", {}), ("cin256", {"label": 3})])
def test_guidance_needs_a_null(name: str, inputs: dict[str, Any]) -> None:
    with pytest.raises(ldmkit.CompositionError, match="can be left out"):
        loaded(name)(inputs, steps=1, size=64, guidance=3.0)
    assert latents(loaded(name), inputs, size=64, guidance=1.0).isfinite().all()


def test_a_picture_too_small_for_the_depth() -> None:
    small, enough = picture((28, 64)), picture((29, 64))
    with pytest.raises(ldmkit.InputError, match="at least 29 pixels") as caught:
        loaded("inpainting_big")({"masked-image": {"image": small, "mask": hole((28, 64))}}, steps=1)
    assert caught.value.code == "input.size-small"
    out = loaded("inpainting_big")({"masked-image": {"image": enough, "mask": hole((29, 64))}}, steps=1)
    assert tuple(out.images.shape[2:]) == (29, 64)


def test_what_is_not_masked_is_kept() -> None:
    image, mask = picture((30, 44)), hole((30, 44))
    for name, more in (("inpainting_big", {}), ("sd1-inpaint", {"text": CLIP_IDS})):
        rows = [{"masked-image": {"image": image, "mask": mask}, **more}] * 2
        drawn = [np.asarray(p) for p in loaded(name)(rows, steps=1, seeds=[0, 1]).pil()]
        outside = np.asarray(mask) == 0
        for result in drawn:
            assert np.array_equal(result[outside], np.asarray(image)[outside])
        assert (drawn[0] != drawn[1])[~outside].mean() > 0.5


def test_a_negative_prompt() -> None:
    pipe = loaded("sd2-v")
    away = latents(pipe, {"text": CLIP_IDS}, negative={"text": NEGATIVE}, size=64)
    assert (away - latents(pipe, {"text": CLIP_IDS}, size=64)).abs().max() > 1e-3
    rows = [{"text": CLIP_IDS}, {}, {"text": ""}]
    mixed = latents(pipe, rows, size=64, seeds=[1, 1, 1])
    for i, row in enumerate(rows):
        assert (mixed[i] - latents(pipe, row, size=64)[0]).abs().max() < ROUNDING


def test_given_signals_are_in_the_recipe(tmp_path: Path) -> None:
    signal = np.random.default_rng(0).normal(size=(4, 64))
    out = loaded("rdm768")({"context": signal}, size=64, steps=2)
    (file,) = out.save(tmp_path / "out.png")
    assert torch.equal(replay(loaded("rdm768"), read_recipe(file)).images, out.images)


def test_hints_of_a_batch_and_guess_mode() -> None:
    pipe, hint = loaded("cldm_v15"), picture((64, 64))
    rows = [{"text": CLIP_IDS, "hint": hint}, {"text": CLIP_IDS}, {"text": "", "hint": picture((64, 64), 1)}]
    alone = [latents(pipe, row, size=64) for row in rows]
    together = latents(pipe, rows, seeds=[1, 1, 1])
    for row, single in zip(together, alone, strict=True):
        assert (row - single[0]).abs().max() < ROUNDING
    assert (together[0] - together[1]).abs().max() > 0.1
    guess = pipe.tuned("control", guess=True)
    dropped = latents(guess, rows[0], guidance=0)
    assert torch.equal(dropped, latents(pipe, rows[1], size=64, guidance=0)), "the unconditional view has no hint"
    assert not torch.equal(latents(guess, {"hint": hint}, guidance=1), latents(pipe, {}, size=64, guidance=1))


def test_several_controlnets_and_pipelines_on_one_network(tmp_path: Path) -> None:
    pipe, hint, edges = loaded("cldm_v15"), picture((64, 64)), picture((64, 64), 1)
    second = ControlNet.from_denoiser(pipe.denoiser)
    for name, weight in second.named_parameters():
        if name.startswith("zero"):
            nn.init.normal_(weight, std=0.05, generator=torch.Generator().manual_seed(0))
    both = pipe.with_adapter("edges", second, {"hint": ldmkit.get("conditioner", "hint")({})})
    one = {"text": CLIP_IDS, "hint": hint}
    plain = latents(pipe, one)
    assert torch.equal(latents(both, one), plain)
    assert (latents(both, {**one, "edges": edges}) - plain).abs().max() > 1e-2
    again = ldmkit.load(both.save(tmp_path / "both"))
    assert torch.equal(latents(again, {**one, "edges": edges}), latents(both, {**one, "edges": edges}))
    twin = ldmkit.Pipeline.of(
        codec=pipe.codec, denoiser=pipe.denoiser, process=pipe.process, conditioners=pipe.conditioners,
        adapters=pipe.adapters, wiring=pipe.wiring, defaults=pipe.defaults,
    )  # fmt: skip
    assert torch.equal(latents(twin, one), plain), "its taps are attached once"


def test_super_resolution_in_patches_and_tiles(tmp_path: Path) -> None:
    pipe = loaded("bsr_sr")

    def cut(kernel: int, budget: float) -> ldmkit.Pipeline:
        return ldmkit.Pipeline.of(
            codec=TiledCodec.wrap(pipe.codec, budget_mib=budget, overlap=16),
            denoiser=PatchedDenoiser.wrap(pipe.denoiser, kernel=kernel, stride=kernel // 2), process=pipe.process,
            conditioners=pipe.conditioners, wiring=pipe.wiring, defaults=pipe.defaults,
        )  # fmt: skip

    low = {"image": picture((32, 28))}
    whole = pipe(low, steps=2)
    assert tuple(whole.images.shape[2:]) == (128, 112)
    assert torch.equal(cut(32, 1024)(low, steps=2).images, whole.images), "one patch and one tile change nothing"
    patched = cut(16, 16)
    assert patched.codec.plan(128, 112).count > 1
    out = patched(low, steps=2)
    assert tuple(out.images.shape) == tuple(whole.images.shape) and not torch.equal(out.images, whole.images)
    assert torch.equal(ldmkit.load(patched.save(tmp_path / "cut"))(low, steps=2).images, out.images)


def test_image_guidance_in_a_call() -> None:
    pipe, size = loaded("ffhq256"), (70, 58)
    target = torch.zeros(1, 3, *size)

    def error(scale: float) -> float:
        guidance = ImageGuidance(target=target, scale=scale)
        return float((pipe({}, size=size, steps=4, guidance=guidance).images * 2 - 1).square().mean())

    assert error(0.01) < error(0.001) < error(0.0)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Tanh(), nn.Flatten(2))
        self.head = nn.Linear(8, 5)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.head(self.body(z).mean(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp-2m"])
def test_classifier_guidance_in_a_call(sampler: str) -> None:
    torch.manual_seed(0)
    classifier = Classifier()

    def wanted(scale: float) -> Tensor:
        guidance = ClassifierGuidance(classifier=classifier, labels=(2, 3), scale=scale)
        out = latents(loaded("ffhq256"), {}, size=64, seeds=[1, 2], steps=4, sampler=sampler, guidance=guidance)
        return classifier(out, torch.zeros(2)).log_softmax(1)[[0, 1], [2, 3]].detach()

    assert (wanted(50.0) > wanted(0.0)).all()


@pytest.mark.parametrize("name", ["cin256", "cldm_v15"])
def test_half_precision(name: str) -> None:
    inputs = {"label": 3} if name == "cin256" else {"text": CLIP_IDS, "hint": picture((64, 64))}
    pipe = loaded(name, "bfloat16")
    assert {part.dtype for part in pipe.parts.items().values() if next(part.parameters(), None) is not None} == {
        torch.bfloat16
    }
    out = pipe(inputs, steps=2, size=64)
    exact = loaded(name)(inputs, steps=2, size=64)
    assert out.images.dtype == torch.float32
    assert (out.latents - exact.latents).abs().mean() < 0.1 * exact.latents.abs().mean()
