"""Two LoRAs, a ControlNet and an IP-Adapter at once: whole pipelines against diffusers with the same four files.

Tolerance: 1e-4 of the largest latent, in float32, as for pipelines without (see test_diffusers_pipelines); each of the
four moves the latents by more than 0.01.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import ip_files as ip
import lora_files as lora
import numpy as np
import pytest
import tiny_diffusers as tiny
import torch
from torch import Tensor

import ldmkit
from ldmkit.run.noise import Noise

HINT = np.random.default_rng(4).integers(0, 2, (32, 32, 3), dtype=np.uint8) * 255
NOISE = Noise([3], (4, 16, 16))(0, "start")
ATTENTION = {"r": 4, "lora_alpha": 8, "target_modules": lora.ATTENTION}
CONVOLUTIONS = {"r": 2, "lora_alpha": 3, "target_modules": ["conv1", "conv2", "to_k", "proj_in", "time_emb_proj"]}
WORDS = {"r": 3, "lora_alpha": 5, "target_modules": lora.TEXT}
PIPES = {"sd": diffusers.StableDiffusionControlNetPipeline, "xl": diffusers.StableDiffusionXLControlNetPipeline}


def files(base: Any, folder: Path, kind: str) -> dict[str, Any]:
    """Two LoRAs, a ControlNet and an IP-Adapter for a pipeline."""
    control = diffusers.ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(8, 16))
    with torch.no_grad():
        for parameter in control.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    control.save_pretrained(folder / "canny")
    second = WORDS if hasattr(base, "text_encoder_2") else None
    return {
        "one": lora.by_diffusers(base, folder / "one", ATTENTION, WORDS, second),
        "two": lora.by_diffusers(base, folder / "two", CONVOLUTIONS),
        "control": folder / "canny",
        "ip": ip.adapter(base.unet, kind, 7),
        "images": ip.encoder(folder / "images"),
    }


def theirs(base: Any, kind: str, made: dict[str, Any]) -> Tensor:
    """Latents of diffusers' pipeline with all of them."""
    parts = {
        k: v for k, v in base.components.items() if k not in ("safety_checker", "feature_extractor", "image_encoder")
    }
    more = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False} if kind == "sd" else {}
    control = diffusers.ControlNetModel.from_pretrained(made["control"])
    pipe = PIPES[kind](**parts, controlnet=control, **more)
    pipe.set_progress_bar_config(disable=True)
    for name in ("one", "two"):
        pipe.load_lora_weights(str(made[name].parent), weight_name=made[name].name, adapter_name=name)
    pipe.set_adapters(["one", "two"], [0.8, 0.5])
    pipe.unet._load_ip_adapter_weights([made["ip"]], low_cpu_mem_usage=False)
    pipe.set_ip_adapter_scale(0.6)
    pipe.register_modules(
        image_encoder=ip.CLIPVisionModelWithProjection.from_pretrained(made["images"]).eval(),
        feature_extractor=ip.CLIPImageProcessorPil(size=ip.EDGE, crop_size=ip.EDGE),
    )
    found: Tensor = pipe(
        "the red house", image=torch.from_numpy(HINT).permute(2, 0, 1)[None].float() / 255, negative_prompt="a blur",
        ip_adapter_image=[[ip.picture(1), ip.picture(2)]], controlnet_conditioning_scale=0.7, num_inference_steps=3,
        guidance_scale=4.0, latents=NOISE, output_type="latent", height=32, width=32,
    ).images  # fmt: skip
    return found


@pytest.mark.parametrize(("kind", "image"), [("sd", "plus"), ("xl", "plain")])
def test_all_at_once(tmp_path: Path, kind: str, image: str) -> None:
    """In any order, fused where that is possible, and with packed weights; and off again one by one."""
    base = tiny.stable_diffusion() if kind == "sd" else tiny.stable_diffusion_xl()
    ours = ldmkit.load(tiny.saved(base, tmp_path / "base"))
    made = files(base, tmp_path, image)
    file = ip.saved(made["ip"], tmp_path / "ip.safetensors")
    want = theirs(base, kind, made)
    given = {"text": "the red house", "hint": HINT, "ip-image": [ip.picture(1), ip.picture(2)]}
    call: dict[str, Any] = {"negative": {"text": "a blur"}, "steps": 3, "guidance": 4.0, "seeds": [3], "size": 32}

    def far(pipe: ldmkit.Pipeline, **changed: Any) -> float:
        got = pipe({**given, **changed}, **call).latents
        return float((got - want).abs().max() / want.abs().max())

    plain = ours({"text": "the red house"}, **call).latents
    loras = ours.with_lora(made["one"], 0.8, name="one").with_lora(made["two"], 0.5, name="two")
    both = loras.with_adapter_file(made["control"], scale=0.7)
    whole = both.with_adapter_file(file, encoder=made["images"], scale=0.6)
    other = ours.with_adapter_file(file, encoder=made["images"], scale=0.6, name="ip").with_lora(made["two"], 0.5)
    other = other.with_adapter_file(made["control"], scale=0.7).with_lora(made["one"], 0.8)
    assert far(whole) < 1e-4 and far(other) < 1e-4
    assert far(whole.fused("one", "two")) < 1e-4 and far(whole.planned("prepacked")) < 1e-4
    for name in whole.adapters:
        assert far(whole.tuned(name, scale=0.0)) > 0.01, name
    assert [one["name"] for one in whole.updates] == ["one", "two", "canny", "ip"]
    del loras, both, whole, other
    assert torch.equal(ours({"text": "the red house"}, **call).latents, plain)
