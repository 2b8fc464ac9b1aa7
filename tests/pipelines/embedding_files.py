"""Files of textual inversion as other programs write them, and a pipeline of diffusers with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_diffusers as tiny
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import ldmkit
from ldmkit.run.noise import Noise

WIDTH = tiny.TEXT_WIDTH
START = Noise([3], (4, 16, 16))(0, "start")


def vectors(count: int, width: int = WIDTH, seed: int = 5) -> Tensor:
    """Vectors as loud as those of `loud`."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def loud(pipe: Any) -> Any:
    """Tables of words with which pictures depend on every token, and norms after which states have a mean."""
    generator = torch.Generator().manual_seed(3)
    for name in ("text_encoder", "text_encoder_2"):
        if getattr(pipe, name, None) is not None:
            table = getattr(pipe, name).get_input_embeddings().weight
            table.data = torch.randn(table.shape, generator=generator)
            model = getattr(pipe, name)
            norm = getattr(model, "text_model", model).final_layer_norm
            norm.weight.data = 1 + 0.3 * torch.randn(norm.weight.shape, generator=generator)
            norm.bias.data = 0.3 + 0.3 * torch.randn(norm.bias.shape, generator=generator)
    return pipe


def a1111(tensor: Tensor, name: str | None = "<cat>", module: bool = False) -> dict[str, Any]:
    """What A1111 hands to torch.save; `module` as its first versions, and the method's authors, did."""
    param = nn.ParameterDict({"*": nn.Parameter(tensor)}) if module else {"*": tensor}
    named = {} if name is None else {"name": name}
    return {
        "string_to_token": {"*": 265}, "string_to_param": param, **named, "step": 500, "sd_checkpoint": "81761151",
        "sd_checkpoint_name": "v1-5-pruned",
    }  # fmt: skip


def safe(folder: Path, tensors: dict[str, Tensor], name: str = "words.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
    return folder / name


def torch_file(folder: Path, tree: Any, name: str = "words.pt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tree, folder / name)
    return folder / name


OPTIONS: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 4.0, "height": 32, "width": 32}


def theirs(pipe: Any, text: str, negative: str = "", **options: Any) -> Tensor:
    """The latents that diffusers draws."""
    pipe.set_progress_bar_config(disable=True)
    model = pipe.text_encoder
    if "clip_skip" in options and not hasattr(model, "text_model"):
        object.__setattr__(model, "text_model", model)  # where diffusers 0.42.1 looks; transformers 5 has it no more
    latents: Tensor = pipe(
        text, negative_prompt=negative, latents=START.clone(), output_type="latent", **OPTIONS, **options
    ).images
    return latents


def ours(pipe: ldmkit.Pipeline, text: Any, negative: Any = "", **options: Any) -> Tensor:
    """The latents that a pipeline of ours draws."""
    output = pipe({"text": text}, negative={"text": negative}, steps=2, guidance=4.0, seeds=[3], size=32, **options)
    return output.latents


def far(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())
