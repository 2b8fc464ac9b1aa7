"""DeepFloyd IF and the x4 upscaler against diffusers' own pipelines, from the same folders: each stage, and the chain.

Networks run in float64 on both sides: near timestep 999 predictions of noise multiply rounding errors by 20000, and
float32 shows 1e-3 after 27 steps. Tolerance: 1e-4 of the largest value; 2e-5 is seen, for our states are in float32.
The output layers are small, so that five steps do not multiply rounding further. Other settings are still seen: the
small variance in place of the learned one is 0.18 away, a quantile of 0.9 0.016, corners aligned otherwise 0.37.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import deepfloyd_models as models
import diffusers
import pytest
import torch
from diffusers.pipelines.deepfloyd_if import (
    pipeline_if,
    pipeline_if_img2img,
    pipeline_if_superresolution,
)
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_upscale
from diffusers.schedulers import scheduling_ddpm
from ldmkit_checkpoints.diffusers.deepfloyd import CLASSES
from torch import Tensor

import ldmkit
from ldmkit.run.noise import Noise

STEPS = 5
PROMPT = "  A red House "
TOLERANCE = 1e-4
MODULES = (pipeline_if, pipeline_if_img2img, pipeline_if_superresolution, pipeline_stable_diffusion_upscale)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.all_three(tmp_path_factory.mktemp("deepfloyd") / "IF")


def far(got: Tensor, want: Tensor) -> float:
    """Of pictures in [0,1], to pictures of IF's pipelines in [-1,1]."""
    assert got.shape == want.shape and got.std() > 0.05
    return float((got * 2 - 1 - want).abs().max() / want.abs().max())


def theirs(folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int, *drawn: Tensor, **given: Any) -> Tensor:
    """Pictures (1,3,h,w) of diffusers' pipeline, with our noise: `drawn` by the pipeline, then by its steps."""
    pipe = opened(folder)
    fed(monkeypatch, seed, drawn)
    own = {} if "Upscale" in type(pipe).__name__ else {"clean_caption": False}
    return pipe(PROMPT, output_type="pt", **own, **given).images


def opened(folder: Path) -> Any:
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder).to(torch.float64)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def fed(monkeypatch: pytest.MonkeyPatch, seed: int, drawn: tuple[Tensor, ...]) -> None:
    first, noise, steps = iter(drawn), Noise([seed], tuple(drawn[0].shape[1:])), iter(range(1000))
    for module in MODULES:
        monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(first).double())
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, **kwargs: noise(next(steps)).double())


def ours(folder: Path) -> Any:
    return ldmkit.load(folder).to(dtype=torch.float64)


def start(seed: int, *shape: int) -> Tensor:
    return Noise([seed], shape)(0, "start")


def augment(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=ldmkit.seeded(seed, "augment", 0))[None]


def picture(size: int) -> Tensor:
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(7)) * 2 - 1


@pytest.mark.parametrize("scale", [7.0, 1.0])
def test_the_first_stage(folder: Path, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"num_inference_steps": STEPS, "guidance_scale": scale}
    want = theirs(folder / "IF-I", monkeypatch, 3, start(3, 3, 16, 16), **given)
    got = ours(folder / "IF-I")({"text": PROMPT}, seeds=[3], steps=STEPS, guidance=scale).images
    assert far(got, want) < TOLERANCE


def test_negative_prompts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = theirs(
        folder / "IF-I", monkeypatch, 3, start(3, 3, 16, 16), num_inference_steps=STEPS, negative_prompt="Blue, "
    )
    pipe = ours(folder / "IF-I")
    got = pipe({"text": PROMPT}, negative={"text": "Blue, "}, seeds=[3], steps=STEPS).images
    assert far(got, want) < TOLERANCE


@pytest.mark.parametrize("name", ["fast27", "super40"])
def test_published_lists_of_timesteps(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.deepfloyd_if import timesteps

    listed = getattr(timesteps, f"{name}_timesteps")
    want = theirs(folder / "IF-I", monkeypatch, 3, start(3, 3, 16, 16), timesteps=listed)
    got = ours(folder / "IF-I")({"text": PROMPT}, seeds=[3], grid={"type": "deepfloyd", "named": name}).images
    assert far(got, want) < TOLERANCE


def test_every_list_is_the_published_one() -> None:
    from diffusers.pipelines.deepfloyd_if import timesteps
    from ldmkit_samplers.grids.deepfloyd import TIMESTEPS

    theirs = {
        name.removesuffix("_timesteps"): tuple(value) for name, value in vars(timesteps).items() if "_time" in name
    }
    assert theirs == TIMESTEPS


@pytest.mark.parametrize("level", [250, 0, 999, 29])
def test_the_second_stage_enlarges_ones_own_picture(folder: Path, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cascade = ldmkit.Cascade.load(folder).to(dtype=torch.float64)
    low = picture(16)
    shape = (3, 32, 32)
    given: dict[str, Any] = {"num_inference_steps": STEPS, "image": low[None].double(), "noise_level": level}
    # the second stage's own folder has no text encoder
    embeds = text_of(folder)
    want = theirs_embedded(folder / "IF-II", monkeypatch, 3, (start(3, *shape), augment(3, *shape)), embeds, **given)
    inputs = {"text": PROMPT, "low": {"image": low, "level": level / 1000}}
    got = cascade(inputs, first="up", last="up", stages={"up": {"seeds": [3]}}, steps=STEPS).images
    assert far(got, want) < TOLERANCE


def text_of(folder: Path) -> tuple[Tensor, Tensor]:
    pipe = opened(folder / "IF-I")
    prompt, negative = pipe.encode_prompt(PROMPT, clean_caption=False)
    return prompt, negative


def theirs_embedded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int, drawn: tuple[Tensor, ...], embeds: Any, **given: Any
) -> Tensor:
    pipe = opened(folder)
    fed(monkeypatch, seed, drawn)
    texts = {"prompt_embeds": embeds[0], "negative_prompt_embeds": embeds[1]}
    return pipe(**texts, output_type="pt", **given).images


@pytest.mark.parametrize("level", [20, 350])
def test_the_third_stage(folder: Path, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    low, size = picture(32), (32, 32)
    given: dict[str, Any] = {"num_inference_steps": STEPS, "image": low[None].double(), "noise_level": level}
    drawn = augment(3, 3, *size), start(3, 4, *size)
    want = theirs(folder / "upscaler", monkeypatch, 3, *drawn, **given) * 2 - 1
    inputs = {"text": PROMPT, "picture": {"image": low, "level": level / 1000}}
    got = ours(folder / "upscaler")(inputs, seeds=[3], steps=STEPS).images
    assert got.shape == (1, 3, 64, 64)
    assert far(got, want) < TOLERANCE


def test_the_chain(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cascade = ldmkit.Cascade.load(folder).to(dtype=torch.float64)
    out = cascade({"text": PROMPT}, seeds=[9], steps=STEPS)
    seeds = {name: ldmkit.stage_seed(9, name) for name in cascade.stages}
    given: dict[str, Any] = {"num_inference_steps": STEPS}
    base = theirs(folder / "IF-I", monkeypatch, seeds["base"], start(seeds["base"], 3, 16, 16), **given)
    assert far(out.stages["base"].images, base) < TOLERANCE
    drawn = start(seeds["up"], 3, 32, 32), augment(seeds["up"], 3, 32, 32)
    up = theirs_embedded(
        folder / "IF-II", monkeypatch, seeds["up"], drawn, text_of(folder), image=base, noise_level=250, **given
    )
    assert far(out.stages["up"].images, up) < TOLERANCE
    drawn = augment(seeds["large"], 3, 32, 32), start(seeds["large"], 4, 32, 32)
    large = theirs(folder / "upscaler", monkeypatch, seeds["large"], *drawn, image=up / 2 + 0.5, **given) * 2 - 1
    assert far(out.images, large) < TOLERANCE


@pytest.mark.parametrize("name", CLASSES)
def test_defaults_are_those_of_diffusers(name: str) -> None:
    call = inspect.signature(getattr(diffusers, name).__call__).parameters
    said = CLASSES[name]
    assert (said.steps, said.guidance) == (call["num_inference_steps"].default, call["guidance_scale"].default)
    if "noise_level" in call:
        assert said.level == call["noise_level"].default


def test_the_text_is_encoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cascade = ldmkit.Cascade.load(folder)
    base, up = (cascade.stages[name].conditioners["text"] for name in ("base", "up"))
    assert base is up
    calls: list[int] = []
    forward = type(base).forward
    monkeypatch.setattr(type(base), "forward", lambda self, inputs: calls.append(len(inputs)) or forward(self, inputs))
    cascade({"text": PROMPT}, last="up", seeds=[1], steps=2)
    assert len(calls) == 2  # the text, and the empty one


def test_from_a_picture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """IFImg2ImgPipeline from the same folder: the start's noise is added to its picture."""
    low = picture(16)
    pipe = diffusers.IFImg2ImgPipeline(**opened(folder / "IF-I").components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    fed(monkeypatch, 3, (start(3, 3, 16, 16),))
    given: dict[str, Any] = {"num_inference_steps": 10, "strength": 0.5, "guidance_scale": 10.0}
    want = pipe(PROMPT, image=low[None].double(), output_type="pt", clean_caption=False, **given).images
    started = ldmkit.Start(low, strength=0.5)
    got = ours(folder / "IF-I")({"text": PROMPT}, seeds=[3], steps=10, guidance=10.0, start=started).images
    assert far(got, want) < TOLERANCE
