"""Whole pipelines against the oracle library: the same folder, prompt and start noise give the same latents.

Tolerance: 1e-4 of the largest latent, in float32. Both sides round differently at every step; what is seen is 1e-6
to 2e-5, and a wrong convention anywhere shows at 1e-3 or more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_diffusers as tiny
import torch
from torch import Tensor

import ldmkit
from ldmkit.run.noise import Noise

PROMPT, NEGATIVE = "the red house", "a blur"
STEPS = 6
SAMPLERS = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpmpp-2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}


def start_noise(seed: int, shape: tuple[int, ...] = (4, 16, 16)) -> Tensor:
    """What our pipeline starts from, to hand to the other side."""
    return Noise([seed], shape)(0, "start")


def close(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert float((got - want).abs().max() / want.abs().max()) < 1e-4


def both(pipe: Any, folder: Path) -> tuple[Any, ldmkit.Pipeline]:
    return pipe, ldmkit.load(tiny.saved(pipe, folder))


each_model = pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


@each_model
@each_sampler
def test_text_to_image(tmp_path: Path, sampler: str, prediction: str) -> None:
    theirs = tiny.stable_diffusion()
    theirs.scheduler = tiny.scheduler(SAMPLERS[sampler], prediction_type=prediction)
    theirs, ours = both(theirs, tmp_path)
    want = theirs(
        PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=4.0,
        latents=start_noise(3), output_type="latent",
    ).images  # fmt: skip
    out = ours({"text": PROMPT}, negative={"text": NEGATIVE}, steps=STEPS, guidance=4.0, seeds=[3])
    scale = theirs.vae.config.scaling_factor
    assert ours.spec.defaults.sampler.type == sampler
    close(out.latents, want)
    pictures = theirs.vae.decode(want / scale).sample
    assert (out.images - (pictures / 2 + 0.5).clamp(0, 1)).abs().max() < 1e-3


@each_model
@each_sampler
def test_image_to_image(tmp_path: Path, sampler: str, prediction: str) -> None:
    theirs = tiny.stable_diffusion()
    theirs.scheduler = tiny.scheduler(SAMPLERS[sampler], prediction_type=prediction)
    theirs, ours = both(theirs, tmp_path)
    image = picture()
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**theirs.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    known = ours.encode(image)
    pipe.scheduler.set_timesteps(10)
    torch_noise = start_noise(5)
    want = oracle_image_to_image(pipe, known, torch_noise, 0.6)
    out = ours({"text": PROMPT}, start=ldmkit.Start(image=image, strength=0.6), steps=10, guidance=4.0, seeds=[5])
    close(out.latents, want)


@each_sampler
def test_image_to_image_with_several_pictures(tmp_path: Path, sampler: str) -> None:
    """The library takes a list of pictures beside a list of prompts, a noise for each."""
    theirs = tiny.stable_diffusion()
    theirs.scheduler = tiny.scheduler(SAMPLERS[sampler], prediction_type="epsilon")
    theirs, ours = both(theirs, tmp_path)
    images = [picture(seed=seed) for seed in (1, 2)]
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**theirs.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    known = ours.encode(images)
    noise = torch.cat([start_noise(5), start_noise(6)])
    want = oracle_image_to_image(pipe, known, noise, 0.6, [PROMPT, NEGATIVE])
    texts = [{"text": PROMPT}, {"text": NEGATIVE}]
    for start in (
        {"image": images, "strength": 0.6},
        [{"image": image, "strength": 0.6} for image in images],
        {"latents": known, "strength": 0.6},
        [ldmkit.Start(latents=row, strength=0.6) for row in known],
    ):
        out = ours(texts, start=start, steps=10, guidance=4.0, seeds=[5, 6])
        close(out.latents, want)


def oracle_image_to_image(
    pipe: Any, known: Tensor, noise: Tensor, strength: float, prompt: str | list[str] = PROMPT
) -> Tensor:
    """The library takes latents in place of a picture; its noise comes from `randn_tensor`, replaced here."""
    from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img as module

    original = module.randn_tensor
    module.randn_tensor = lambda *args, **kwargs: noise  # type: ignore[assignment]
    try:
        return pipe(  # type: ignore[no-any-return]
            prompt, image=known, strength=strength, num_inference_steps=10, guidance_scale=4.0, output_type="latent"
        ).images
    finally:
        module.randn_tensor = original


def picture(size: tuple[int, int] = (32, 32), seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@each_model
@each_sampler
def test_inpainting_with_any_model(tmp_path: Path, sampler: str, prediction: str) -> None:
    """Strength < 1: at 1 the library starts from noise alone, which leaves the known region off its trajectory."""
    from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_inpaint as module

    theirs = tiny.stable_diffusion()
    theirs.scheduler = tiny.scheduler(SAMPLERS[sampler], prediction_type=prediction)
    theirs, ours = both(theirs, tmp_path)
    pipe = diffusers.StableDiffusionInpaintPipeline(**theirs.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    image, mask = picture(), np.zeros((32, 32), np.uint8)
    mask[8:24, 4:20] = 255
    known, noise = ours.encode(image), start_noise(7)
    originals = module.randn_tensor, pipe._encode_vae_image
    module.randn_tensor = lambda *args, **kwargs: noise  # type: ignore[assignment]
    pipe._encode_vae_image = lambda image, generator: known
    try:
        want = pipe(
            PROMPT, image=torch.zeros(1, 3, 32, 32), mask_image=torch.from_numpy(mask / 255.0)[None, None].float(),
            strength=0.8, num_inference_steps=10, guidance_scale=4.0, output_type="latent", height=32, width=32,
        ).images  # fmt: skip
    finally:
        module.randn_tensor = originals[0]
    start = ldmkit.Start(image=image, strength=0.8, mask=mask)
    out = ours({"text": PROMPT}, start=start, steps=10, guidance=4.0, seeds=[7])
    drawn = torch.from_numpy(mask[::2, ::2] > 0)  # DDIM ends at alpha_bar_0, where the library resets the rest to x0
    close(out.latents[..., drawn], want[..., drawn])
    assert np.array_equal(np.asarray(out.pil()[0])[mask == 0], image[mask == 0])


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.2, 0.7)])
@each_model
@each_sampler
def test_controlnet(tmp_path: Path, sampler: str, prediction: str, interval: tuple[float, float]) -> None:
    theirs = tiny.controlnet_pipeline()
    theirs.scheduler = tiny.scheduler(SAMPLERS[sampler], prediction_type=prediction)
    theirs, ours = both(theirs, tmp_path)
    hint = (picture((32, 32), 4) // 128 * 255).astype(np.uint8)
    want = theirs(
        PROMPT, image=torch.from_numpy(hint).permute(2, 0, 1)[None].float() / 255, num_inference_steps=10,
        guidance_scale=4.0, controlnet_conditioning_scale=0.7, control_guidance_start=interval[0],
        control_guidance_end=interval[1], latents=start_noise(2), output_type="latent",
    ).images  # fmt: skip
    ours = ours.tuned("control", scale=0.7, start=interval[0], end=interval[1])
    out = ours({"text": PROMPT, "hint": hint}, steps=10, guidance=4.0, seeds=[2])
    close(out.latents, want)


def test_two_text_encoders_and_sizes(tmp_path: Path) -> None:
    theirs, ours = both(tiny.stable_diffusion_xl(), tmp_path)
    want = theirs(
        PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=4.0, height=32, width=32,
        latents=start_noise(3), output_type="latent",
    ).images  # fmt: skip
    out = ours({"text": PROMPT}, negative={"text": NEGATIVE}, size=32, steps=STEPS, guidance=4.0, seeds=[3])
    close(out.latents, want)
    # given sizes are the input `sizes`: `size` is the picture's own, in Python and on the command line
    want = theirs(
        PROMPT, num_inference_steps=2, guidance_scale=1.0, height=32, width=32, original_size=(64, 48),
        crops_coords_top_left=(8, 4), latents=start_noise(3), output_type="latent",
    ).images  # fmt: skip
    sizes = {"original": (64, 48), "crop": (8, 4), "target": (32, 32)}
    close(ours({"text": PROMPT, "sizes": sizes}, size=32, steps=2, guidance=1, seeds=[3]).latents, want)


@pytest.mark.parametrize("zeros", [True, False])
def test_no_negative_prompt(tmp_path: Path, zeros: bool) -> None:
    """Zeros, or the empty prompt's encoding, as the folder says; an empty negative prompt is encoded in any case."""
    theirs = tiny.stable_diffusion_xl()
    theirs.register_to_config(force_zeros_for_empty_prompt=zeros)
    theirs, ours = both(theirs, tmp_path)
    found = {}
    for negative in (None, ""):
        found[negative] = theirs(
            PROMPT, negative_prompt=negative, num_inference_steps=2, guidance_scale=4.0, height=32, width=32,
            latents=start_noise(3), output_type="latent",
        ).images  # fmt: skip
        given = None if negative is None else {"text": negative}
        close(
            ours({"text": PROMPT}, negative=given, size=32, steps=2, guidance=4.0, seeds=[3]).latents, found[negative]
        )
    assert torch.equal(found[None], found[""]) == (not zeros)


@pytest.mark.parametrize("scores", [(6.0, 2.5), (7.0, 1.0)])
def test_refiner(tmp_path: Path, scores: tuple[float, float]) -> None:
    """The default scores of both sides, and given ones."""
    from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl_img2img as module

    theirs, ours = both(tiny.refiner(), tmp_path)
    image, noise = picture(), start_noise(5)
    known = ours.encode(image)
    original = module.randn_tensor
    module.randn_tensor = lambda *args, **kwargs: noise  # type: ignore[assignment]
    try:
        want = theirs(
            PROMPT, negative_prompt=NEGATIVE, image=known, strength=0.6, num_inference_steps=10, guidance_scale=4.0,
            aesthetic_score=scores[0], negative_aesthetic_score=scores[1], output_type="latent",
            original_size=(32, 32), target_size=(32, 32),
        ).images  # fmt: skip
    finally:
        module.randn_tensor = original
    inputs: list[dict[str, Any]] = [{"text": PROMPT}, {"text": NEGATIVE}]
    if scores != (6.0, 2.5):
        for row, score in zip(inputs, scores, strict=True):
            row["sizes"] = {"original": (32, 32), "target": (32, 32), "aesthetic": score}
    start = ldmkit.Start(image=image, strength=0.6)
    close(ours(inputs[0], negative=inputs[1], start=start, steps=10, guidance=4.0, seeds=[5]).latents, want)


def test_a_model_trained_for_inpainting(tmp_path: Path) -> None:
    theirs = tiny.stable_diffusion(in_channels=9)
    pipe = diffusers.StableDiffusionInpaintPipeline(**theirs.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    _, ours = both(pipe, tmp_path)
    image, mask = picture(), np.zeros((32, 32), np.uint8)
    mask[8:24, 4:20] = 255
    holed = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    holed = holed * torch.from_numpy(mask < 128)[None, None]
    known = ours.codec.encode(holed)
    pipe._encode_vae_image = lambda image, generator: known
    want = pipe(
        PROMPT, image=torch.zeros(1, 3, 32, 32), mask_image=torch.from_numpy(mask / 255.0)[None, None].float(),
        strength=1.0, num_inference_steps=STEPS, guidance_scale=4.0, latents=start_noise(9), output_type="latent",
        height=32, width=32,
    ).images  # fmt: skip
    (name,) = [n for n in ours.conditioners if n != "text"]
    out = ours({"text": PROMPT, name: {"image": image, "mask": mask}}, steps=STEPS, guidance=4.0, seeds=[9])
    close(out.latents, want)


def test_weights_beside_a_pipeline_are_named(tmp_path: Path) -> None:
    tiny.saved(tiny.stable_diffusion(), tmp_path)
    for name in ("pytorch_lora_weights.safetensors", "learned_embeds-steps-500.bin"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"learned_embeds-steps-500.bin, pytorch_lora_weights.* not applied"):
        ours = ldmkit.load(tmp_path)
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path)
    theirs.set_progress_bar_config(disable=True)
    want = theirs(
        PROMPT, num_inference_steps=2, guidance_scale=4.0, latents=start_noise(3), output_type="latent"
    ).images
    close(ours({"text": PROMPT}, steps=2, guidance=4.0, seeds=[3]).latents, want)
