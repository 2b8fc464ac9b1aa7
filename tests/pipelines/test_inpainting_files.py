"""Inpainting models in one file of the original layout draw what diffusers' inpainting pipelines draw.

The files are listed by the original modules' rules and turned into diffusers' modules by its own conversion. Tolerance:
1e-4 of the largest latent and 1e-3 of pixels in [0, 1], in float32: both sides round differently at every step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_diffusers as tiny
import torch
from ldmkit_checkpoints.diffusers.scheduler import read_scheduler
from ldmkit_checkpoints.singlefile.models import infer_config
from original_files import reduced, write
from original_inputs import CLIP_IDS
from original_models import MODELS
from test_original_family import full_file, reference_stage, reference_unet, small_towers, weights_in
from torch import Tensor

import ldmkit
from ldmkit.models.weights import LazyTensor
from ldmkit.run.noise import Noise

__all__ = ["small_towers"]

SIZE, STEPS, SEED = 64, 4, 9
OTHER = [49406, 911, 49407]


def module_config() -> dict[str, Any]:
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    return {**betas, "clip_sample": False, "set_alpha_to_one": False, "timestep_spacing": "leading"}


def theirs(name: str, path: Path, embeddings: bool) -> Any:
    """The inpainting pipeline of the file's U-Net and first stage; texts come encoded."""
    model, state = reduced(MODELS[name]), weights_in(path)
    net = reference_unet(name, state, model)
    net.register_to_config(sample_size=64)
    first = reduced(MODELS[name]).params["first_stage_config"]["params"]
    prefix = "first_stage_model."
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    vae, _ = reference_stage(_Stage(first), own)
    vae.register_to_config(scaling_factor=model.params["scale_factor"], force_upcast=False)
    parts = {"vae": vae, "unet": net, "scheduler": diffusers.DDIMScheduler(**module_config()), "tokenizer": None}
    if embeddings:
        pipe: Any = diffusers.StableDiffusionXLInpaintPipeline(
            **parts, text_encoder=None, text_encoder_2=tiny.text_model(64), tokenizer_2=None, add_watermarker=False
        )
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "text_encoder": None}
        pipe = diffusers.StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


class _Stage:
    """A first stage's section as `reference_stage` reads a model."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params


def encoded(pipe: ldmkit.Pipeline, ids: list[int]) -> dict[str, Tensor]:
    """Tokens of every tower side by side, and the pooled vector."""
    found = {name: part([part.parse(ids, name)]) for name, part in pipe.conditioners.items() if _reads_text(part)}
    tokens = [signal.value for signal in found.values() if signal.value.ndim == 3]
    pooled = [signal.value for signal in found.values() if signal.value.ndim == 2]
    return {"tokens": torch.cat(tokens, -1), **({"pooled": pooled[0]} if pooled else {})}


def _reads_text(part: Any) -> bool:
    return type(part).__name__ in ("ClipText", "ClipPooled")


@pytest.mark.usefixtures("small_towers")
@pytest.mark.parametrize("name", ["sd1-inpaint", "sd2-inpaint", "sdxl-inpaint"])
def test_pixels_of_diffusers(tmp_path: Path, name: str) -> None:
    path, config = write(reduced(MODELS[name]), tmp_path)
    ours, xl = ldmkit.load(path, config=config), name.startswith("sdxl")
    pipe = theirs(name, path, xl)
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[16:48, 8:40] = 255
    shown = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1

    def mode(image: Tensor, generator: Any) -> Tensor:
        """The mean of the posterior, where the pipeline draws one of it."""
        with torch.no_grad():
            return pipe.vae.encode(image).latent_dist.mode() * pipe.vae.config.scaling_factor

    pipe._encode_vae_image = mode
    noise = Noise((SEED,), (4, SIZE // 8, SIZE // 8), ours.device)(0, "start")
    with torch.no_grad():
        text, other = encoded(ours, CLIP_IDS), encoded(ours, OTHER)
    options: dict[str, Any] = {"prompt_embeds": text["tokens"], "negative_prompt_embeds": other["tokens"]}
    if xl:
        options |= {"pooled_prompt_embeds": text["pooled"], "negative_pooled_prompt_embeds": other["pooled"]}
    options |= {"image": shown, "mask_image": torch.from_numpy(mask / 255.0)[None, None].float(), "strength": 1.0}
    options |= {"height": SIZE, "width": SIZE, "num_inference_steps": STEPS, "guidance_scale": 4.0, "latents": noise}
    want = pipe(**options, output_type="latent").images
    pixels = pipe(**options, output_type="pt").images
    plan = read_scheduler({"_class_name": "DDIMScheduler", **dict(pipe.scheduler.config)}, "scheduler")
    row = {"text": CLIP_IDS, "masked-image": {"image": image, "mask": mask}}
    out = ours(
        row, negative={"text": OTHER}, steps=STEPS, guidance=4.0, seeds=[SEED],
        sampler=plan.sampler.model_dump(), grid=plan.grid.model_dump(),
    )  # fmt: skip
    assert (out.latents - want).abs().max() <= 1e-4 * want.abs().max()
    hole = torch.from_numpy(mask > 0)  # outside of it our pictures are the given one, exactly
    assert ((out.images - pixels)[..., hole]).abs().max() <= 1e-3
    base = ours({**row, "masked-image": {"image": image, "mask": np.full_like(mask, 255)}}, steps=STEPS, seeds=[SEED])
    assert not torch.allclose(base.latents, out.latents, atol=0.1), "the picture acts"


@pytest.mark.parametrize(
    ("name", "channels", "says"),
    [
        *(("sd1", *more) for more in ((8, "InstructPix2Pix"), (5, "depth"), (7, "upscaler"), (6, "no model"))),
        *(("sd2-base", *more) for more in ((8, "InstructPix2Pix"), (5, "depth"), (7, "upscaler"))),
        *(("sdxl-base", *more) for more in ((8, "SDXL.*InstructPix2Pix"), (5, "SDXL.*depth"))),
        ("sdxl-refiner", 8, "SDXL.*InstructPix2Pix"),
    ],
)
def test_other_planes_are_named(name: str, channels: int, says: str) -> None:
    tensors, key = full_file(MODELS[name]), "model.diffusion_model.input_blocks.0.0.weight"
    shape = tensors[key].shape
    tensors[key] = LazyTensor((shape[0], channels, *shape[2:]), torch.float32, lambda copy: torch.zeros(()))
    with pytest.raises(ldmkit.SourceError, match=rf"unsupported.*{channels} input channels.*{says}|{says}"):
        infer_config(tensors, {}, "a file")


@pytest.mark.usefixtures("small_towers")
@pytest.mark.parametrize(("channels", "says"), [(8, "InstructPix2Pix"), (5, "depth")])
def test_a_yaml_does_not_make_other_planes_a_masked_picture(tmp_path: Path, channels: int, says: str) -> None:
    model = reduced(MODELS["sd1-inpaint"])
    model.params["unet_config"]["params"]["in_channels"] = channels
    path, config = write(model, tmp_path)
    with pytest.raises(ldmkit.SourceError, match=says):
        ldmkit.load(path, config=config)
