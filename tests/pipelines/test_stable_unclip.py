"""Stable unCLIP against diffusers: whole pipelines, levels of noise, defaults, refusals, and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import unclip_models as models
from ldmkit_checkpoints.diffusers.unclip_stable import NORMALIZER
from PIL import Image
from torch import Tensor

import ldmkit
from ldmkit.cli import main
from ldmkit.run.noise import Noise

PROMPT, NEGATIVE = "a horse", "the sea"
TOLERANCE = 1e-4
"""float32 on both sides; 2e-6 is seen, and noise drawn in another order shows at 0.1."""


def picture(seed: int = 0, size: tuple[int, int] = (40, 33)) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def embedding_noise(seed: int) -> Tensor:
    return torch.randn(1, models.DIM, generator=ldmkit.seeded(seed, "augment", 0))


def oracle(pipe: Any, monkeypatch: pytest.MonkeyPatch, seed: int, shape: tuple[int, ...], **call: Any) -> Tensor:
    """diffusers draws the embedding's noise first, then the latents': both are ours here."""
    from diffusers.pipelines.stable_diffusion import pipeline_stable_unclip_img2img as module

    drawn = [Noise([seed], shape)(0, "start"), embedding_noise(seed)]
    monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: drawn.pop())
    found = pipe(**call, output_type="latent").images
    assert not drawn
    return found  # type: ignore[no-any-return]


def far(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("level", [0, 10, 100, 999])
def test_whole_pipelines(level: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, image = models.stable_unclip(tmp_path), picture()
    call = {"image": Image.fromarray(image), "prompt": PROMPT, "negative_prompt": NEGATIVE, "noise_level": level}
    want = oracle(theirs, monkeypatch, 3, (4, 16, 16), **call, num_inference_steps=4, guidance_scale=5.0)
    ours = ldmkit.load(tmp_path)
    inputs = {"text": PROMPT, "image": {"image": image, "level": level}}
    out = ours(inputs, negative={"text": NEGATIVE}, seeds=[3], steps=4, guidance=5.0)
    assert far(out.latents, want) < TOLERANCE
    other = ours({**inputs, "image": {"image": image, "level": (level + 500) % 1000}}, seeds=[3], steps=4).latents
    assert far(other, want) > 0.01


def test_defaults_are_those_of_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, image = models.stable_unclip(tmp_path), picture(1)
    want = oracle(theirs, monkeypatch, 0, (4, 16, 16), image=Image.fromarray(image), prompt="")
    ours = ldmkit.load(tmp_path)
    out = ours({"text": "", "image": image}, seeds=[0])
    assert far(out.latents, want) < TOLERANCE
    assert (ours.spec.defaults.steps, ours.spec.defaults.guidance.config["scale"]) == (20, 10.0)


@pytest.mark.parametrize(
    "noising",
    [
        diffusers.DDIMScheduler(beta_schedule="linear", num_train_timesteps=50),
        diffusers.PNDMScheduler(beta_schedule="scaled_linear"),
        diffusers.DDPMScheduler(trained_betas=[0.1, 0.2, 0.3], num_train_timesteps=3),
    ],
)
def test_the_table_of_the_noise_is_the_folders(noising: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, embedding = models.stable_unclip(tmp_path, noising=noising), torch.linspace(-1, 1, models.DIM)
    call = {"image_embeds": embedding[None], "prompt": PROMPT, "noise_level": 2, "guidance_scale": 1.0}
    want = oracle(theirs, monkeypatch, 1, (4, 16, 16), **call, num_inference_steps=2)
    ours = ldmkit.load(tmp_path)
    given = {"text": PROMPT, "image": {"embedding": embedding, "level": 2}}
    assert far(ours(given, seeds=[1], steps=2, guidance=1.0).latents, want) < TOLERANCE
    steps = noising.config.num_train_timesteps
    with pytest.raises(ldmkit.InputError, match=rf"0 to {steps - 1}"):
        ours({**given, "image": {"embedding": embedding, "level": steps}}, steps=2)


def test_other_noise_is_refused_by_name(tmp_path: Path) -> None:
    models.stable_unclip(tmp_path, noising=diffusers.EulerDiscreteScheduler())
    with pytest.raises(ldmkit.SourceError, match="EulerDiscreteScheduler"):
        ldmkit.load(tmp_path)


def test_a_normalizer_of_zeros_or_of_another_field_is_an_error(tmp_path: Path) -> None:
    theirs = models.stable_unclip(tmp_path)
    theirs.image_normalizer.std.data.zero_()
    theirs.image_normalizer.save_pretrained(tmp_path / NORMALIZER)
    with pytest.raises(ldmkit.WeightsError, match="deviation"):
        ldmkit.load(tmp_path)({"text": PROMPT, "image": picture()}, steps=2)
    config = tmp_path / NORMALIZER / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "embeding_dim": 3}))
    with pytest.raises(ldmkit.SourceError, match="embedding_dim"):
        ldmkit.load(tmp_path)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"embedding": [0.0] * 7}, "32"),
        ({"embedding": [0.0] * 32, "image": picture()}, "both a picture and an embedding"),
        ({"level": 3}, "neither"),
        ({"image": picture(), "level": 1000}, "0 to 999"),
        ({"image": picture(), "level": -1}, "level"),
        ({"image": picture(), "level": 2.5}, "level"),
    ],
)
def test_bad_inputs_are_named(given: Any, word: str, tmp_path: Path) -> None:
    models.stable_unclip(tmp_path)
    with pytest.raises(ldmkit.InputError, match=word):
        ldmkit.load(tmp_path)({"text": PROMPT, "image": given}, steps=2)


def test_batches_rows_and_saved_folders_agree(tmp_path: Path) -> None:
    models.stable_unclip(tmp_path / "theirs")
    ours, images = ldmkit.load(tmp_path / "theirs"), [picture(1), picture(2, (20, 50))]
    rows = [{"text": PROMPT, "image": {"image": image, "level": 50}} for image in images]
    both = ours(rows, seeds=[4, 5], steps=2).latents
    again = ldmkit.load(ours.save(tmp_path / "own"))
    for i, row in enumerate(rows):
        assert far(again(row, seeds=[4 + i], steps=2).latents, both[i : i + 1]) < 1e-5, "batches differ by rounding"


def test_variations_on_the_command_line(tmp_path: Path) -> None:
    models.stable_unclip(tmp_path / "theirs")
    Image.fromarray(picture()).save(tmp_path / "a.png")
    for image, level in (
        (str(tmp_path / "a.png"), 0),
        (json.dumps({"image": str(tmp_path / "a.png"), "level": 40}), 40),
    ):
        out = tmp_path / f"{level}.png"
        command = ["sample", str(tmp_path / "theirs"), "--text", PROMPT, "--image", image, "--steps", "2"]
        assert main([*command, "--seed", "7", "--out", str(out)]) == 0
        row = {"text": PROMPT, "image": {"image": picture(), "level": level}}
        want = ldmkit.load(tmp_path / "theirs")(row, seeds=[7], steps=2).pil()[0]
        assert np.array_equal(np.asarray(Image.open(out)), np.asarray(want))
        assert main(["replay", str(out), "--out", str(tmp_path / f"again-{level}.png")]) == 0
