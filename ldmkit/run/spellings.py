"""Argument and attribute names of other libraries, with their equivalents in ldmkit, for error messages."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any, TypeVar

from ldmkit.errors import InputError, suggest

F = TypeVar("F", bound=Callable[..., Any])

_TEXT = 'inputs={"text": ...}'
_START = 'start={"image": ..., "strength": 0.6, "mask": ...}'
_SEEDS = "seeds=[...], one per picture"
_TUNED = 'pipe.tuned("its name", scale=..., start=..., end=...)'
_SIZE = "size=(height, width)"
_NOISE = 'seeds, which determine the noise; start={"latents": ...} for the latents of a picture'
_ENCODED = "inputs, which are encoded in the call"

CALLS: Mapping[str, str] = {
    **dict.fromkeys(("prompt", "prompts", "prompt_2", "caption", "class_labels"), _TEXT),
    **dict.fromkeys(("negative_prompt", "negative_prompt_2", "negative_prompts", "uncond"), 'negative={"text": ...}'),
    **dict.fromkeys(("num_inference_steps", "num_steps", "n_steps", "ddim_steps", "sampling_steps"), "steps"),
    **dict.fromkeys(("guidance_scale", "cfg_scale", "cfg", "scale", "unconditional_guidance_scale"), "guidance"),
    **dict.fromkeys(("height", "width", "H", "W", "image_size", "resolution", "target_size", "original_size"), _SIZE),
    **dict.fromkeys(("generator", "seed", "num_images_per_prompt", "num_images", "batch_size", "n_samples"), _SEEDS),
    **dict.fromkeys(("image", "init_image", "input_image", "strength", "denoising_strength"), _START),
    **dict.fromkeys(("mask_image", "mask", "masked_image", "inpaint_mask"), _START),
    **dict.fromkeys(("latents", "init_latents", "x_T"), _NOISE),
    **dict.fromkeys(("scheduler", "sampler_name"), "sampler, and grid for the noise levels"),
    **dict.fromkeys(("sigmas", "noise_schedule"), "grid=[...], the noise levels from high to low, ending in 0"),
    "timesteps": "grid=[...], the noise levels (pipe.process.sigma_of_time(t)) from high to low, ending in 0",
    **dict.fromkeys(("callback", "callback_on_step_end", "img_callback"), "on_step, a function of one Step"),
    **dict.fromkeys(("callback_steps", "callback_on_step_end_tensor_inputs"), "on_step is called after every step"),
    **dict.fromkeys(("eta", "ddim_eta"), 'sampler={"type": "ddim", "eta": ...}'),
    "guidance_rescale": 'guidance={"type": "cfg", "scale": ..., "rescale": ...}',
    "denoising_end": "grid=levels[:n], which leaves noise; the output goes on as start=out, grid=levels[n - 1:]",
    "denoising_start": 'start={"latents": out.latents, "noised": out.noised}, grid=[out.noised, ..., 0]',
    "clip_skip": "the text conditioner's config, when the model is loaded",
    **dict.fromkeys(("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds"), _ENCODED),
    **dict.fromkeys(("output_type", "return_dict"), "out.images, out.latents and out.pil() of the result"),
    **dict.fromkeys(("cross_attention_kwargs", "controlnet_conditioning_scale", "control_guidance_start"), _TUNED),
    **dict.fromkeys(("control_guidance_end", "adapter_conditioning_scale", "lora_scale", "ip_adapter_scale"), _TUNED),
    **dict.fromkeys(("control_image", "ip_adapter_image", "adapter_image"), 'inputs={"its name": ...}'),
    **dict.fromkeys(("verbose", "progress", "show_progress", "disable_progress_bar"), "on_step, or pipe.stream(...)"),
}  # fmt: skip
"""Argument of another library -> the equivalent here."""

ATTRIBUTES: Mapping[str, str] = {
    **dict.fromkeys(("scheduler", "sampler"), "sampler=... and grid=... of a call, or pipe.defaults"),
    **dict.fromkeys(("vae", "first_stage_model", "autoencoder"), "pipe.codec"),
    **dict.fromkeys(("unet", "transformer", "model"), "pipe.denoiser"),
    **dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "cond_stage_model"), "pipe.conditioners"),
    **dict.fromkeys(("controlnet", "adapter"), "pipe.adapters"),
    **dict.fromkeys(("from_pretrained", "from_single_file"), "ldmkit.load(...)"),
    "save_pretrained": "pipe.save(folder)",
    **dict.fromkeys(("cuda", "half"), 'pipe.to("cuda"), pipe.to(torch.float16)'),
    **dict.fromkeys(("enable_vae_tiling", "enable_vae_slicing"), "ldmkit.get('codec', 'tiled').wrap(...)"),
    **dict.fromkeys(("load_lora_weights", "load_ip_adapter", "set_adapters"), "pipe.with_adapter(...)"),
    **dict.fromkeys(("set_progress_bar_config", "progress_bar"), "on_step of a call, or pipe.stream(...)"),
    **dict.fromkeys(("encode_prompt", "embed"), "pipe.conditioning(inputs, size=...)"),
    **dict.fromkeys(("guidance_scale", "guidance"), "guidance=... of a call"),
    **dict.fromkeys(("num_inference_steps", "num_steps"), "steps=... of a call"),
    **dict.fromkeys(("safety_checker", "feature_extractor", "watermark"), "no equivalent"),
}  # fmt: skip
"""Attribute or method of another library's pipeline -> the equivalent here."""


def check_arguments(given: Collection[str], known: Collection[str], inputs: Collection[str]) -> None:
    """Refuse unknown arguments of a call, with a suggestion.

    Args:
        inputs: the model's input names, which belong in the mapping `inputs` instead of being arguments.

    Raises:
        InputError: `unknown-argument`.
    """
    for name in given:
        if name in known:
            continue
        fits = CALLS.get(name) or suggest(name, known)
        if name in inputs:
            fits = f'inputs={{"{name}": ...}}'
        raise InputError("unknown-argument", f"unknown argument {name!r}", where=name, fits=fits)


def own_arguments(method: F) -> F:
    """Decorator of pipeline methods: unknown keywords raise the error of `check_arguments`. The type is unchanged, so
    type checkers refuse them as well."""
    known = tuple(inspect.signature(method).parameters)[1:]

    @wraps(method)
    def checked(self: Any, *args: Any, **options: Any) -> Any:
        check_arguments(options, known, self.inputs)
        return method(self, *args, **options)

    return checked  # type: ignore[return-value]


def no_attribute(owner: str, name: str) -> AttributeError:
    """The error for an unknown attribute of a pipeline, with the equivalent if known."""
    ours = ATTRIBUTES.get(name)
    if ours is None and name.startswith("enable_"):
        ours = "ldmkit.load(..., device=..., dtype=...), or pipe.planned(...) for execution plans"
    return AttributeError(f"a {owner} has no attribute {name!r}" + (f"; here: {ours}" if ours else ""))
