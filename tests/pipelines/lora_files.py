"""LoRA files as the other programs write them, with seeded weights, for tiny pipelines."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import diffusers
import peft
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
ALL = [
    *ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut", "conv",
    "time_emb_proj", "conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2",
]  # fmt: skip
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
OWN = ("lora_", "hada_", "lokr_")


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Give the tensors of an adapter values: new ones change nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1 + 0.2 * torch.rand(parameter.shape, generator=generator))
            elif any(part in name for part in OWN):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)


def by_diffusers(
    base: Any, folder: Path, unet: dict[str, Any], text: dict[str, Any] | None = None, second: Any = None
) -> Path:
    """A file that diffusers wrote, with adapters of peft's configs for the U-Net and the text encoders."""
    layers: dict[str, Any] = {}
    for key, config in (("unet", unet), ("text_encoder", text), ("text_encoder_2", second)):
        if config is None:
            continue
        part = copy.deepcopy(getattr(base, key))
        part.add_adapter(peft.LoraConfig(**config))
        randomise(part, len(key))
        layers[f"{key}_lora_layers"] = peft.get_peft_model_state_dict(part)
        layers[f"{key}_lora_adapter_metadata"] = part.peft_config["default"].to_dict()
    type(base).save_lora_weights(folder, **layers)
    return folder / "pytorch_lora_weights.safetensors"


def by_kohya(file: Path, out: Path, *, text: str = "te", alpha: float | None = 3.0, half: bool = False) -> Path:
    """The same changes with kohya's keys, and an alpha for each layer."""
    kept: dict[str, Tensor] = {}
    for key, tensor in load_file(file).items():
        path, _, end = key.partition(".lora_")
        head, _, rest = path.partition(".")
        flat = f"lora_{'unet' if head == 'unet' else text}_{rest.replace('.', '_')}"
        kept[f"{flat}.lora_{'down' if end.startswith('A') else 'up'}.weight"] = tensor.half() if half else tensor
        if alpha is not None:
            kept[f"{flat}.alpha"] = torch.tensor(alpha)
    save_file(kept, out)
    return out


def drawn_by_diffusers(folder: Path, sources: list[tuple[Path, float]], noise: Tensor, **call: Any) -> Tensor:
    """Latents of diffusers' pipeline with LoRA files loaded."""
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    names = [f"lora{i}" for i in range(len(sources))]
    for name, (file, _) in zip(names, sources, strict=True):
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)
    pipe.set_adapters(names, [scale for _, scale in sources])
    result: Tensor = pipe(latents=noise, output_type="latent", **call).images
    return result
