"""Full-size networks against diffusers and transformers with the same seeded random weights.

    python benchmarks/full_size_parity.py

Both sides hold the same tensors, so a network costs its weights once. Everything is float64 and must agree to 1e-10
relative, except one case: SDXL's U-Net does not fit a small machine in float64, so it is compared in float32 (to 1e-5)
with all weights different, and in float64 with tensors of one shape tied together.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch
import transformers
from common import deviation, write
from ldmkit_adapters.controlnet import ControlNet
from ldmkit_checkpoints.diffusers.controlnet import controlnet_diffusers, controlnet_from_diffusers
from ldmkit_checkpoints.diffusers.unet_config import diffusers_options, unet_from_diffusers
from ldmkit_checkpoints.diffusers.unet_keys import unet_diffusers
from ldmkit_checkpoints.diffusers.vae_config import kl_from_diffusers
from ldmkit_checkpoints.diffusers.vae_keys import kl_diffusers_keys
from ldmkit_checkpoints.keys import KeyMap
from ldmkit_checkpoints.transformers.text_config import clip_from_hf
from ldmkit_checkpoints.transformers.text_keys import clip_hf_keys, clip_hf_level
from ldmkit_codecs.kl import KLCodec
from ldmkit_conditioners.clip_tower import ClipConfig, ClipTower
from ldmkit_denoisers.unet import UNet
from torch import Tensor, nn

from ldmkit import Context, Plane, Run, Tokens, Vector

SD_UNET: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768}
XL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
}


def seeded(build: Callable[[], nn.Module], dtype: torch.dtype, tied: bool = False) -> nn.Module:
    """A module with normal weights of std 0.6 / sqrt(fan in), so that no branch vanishes."""
    with torch.device("meta"):
        module = build()
    generator = torch.Generator().manual_seed(0)
    shared: dict[tuple[int, ...], Tensor] = {}
    for name, parameter in list(module.named_parameters()):
        shape = tuple(parameter.shape)
        value = shared.get(shape) if tied else None
        if value is None:
            fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 36
            value = torch.randn(shape, generator=generator, dtype=dtype).mul_(0.6 / fan**0.5)
            value = value + 1 if parameter.ndim == 1 and name.endswith("weight") else value
            shared[shape] = value
        owner, leaf = module.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        setattr(owner, leaf, nn.Parameter(value, requires_grad=False))
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            positions = torch.arange(buffer.shape[-1]).expand(tuple(buffer.shape)).clone()
            module.get_submodule(name.rpartition(".")[0])._buffers[name.rpartition(".")[2]] = positions
    return module.eval()


def borrowed(build: Callable[[], nn.Module], keymap: KeyMap, state: Mapping[str, Tensor]) -> Any:
    """Our module on the other side's tensors."""
    with torch.device("meta"):
        module = build()
    native = {name: entry.read(*(state[key] for key in entry.keys)) for name, entry in keymap.items()}
    module.load_state_dict(native, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def compare_unet(config: dict[str, Any], dtype: torch.dtype, tied: bool = False) -> float:
    theirs = seeded(lambda: diffusers.UNet2DConditionModel(**config), dtype, tied)
    state, full = theirs.state_dict(), dict(theirs.config)
    native = unet_from_diffusers(full)
    ours = borrowed(lambda: UNet(native), unet_diffusers(native, **diffusers_options(full, state)), state)
    x, t = torch.randn(2, 4, 16, 24, dtype=dtype), torch.tensor([801.0, 13.0])
    text = torch.randn(2, 77, config["cross_attention_dim"], dtype=dtype)
    signals: dict[str, Any] = {"context": Tokens(text)}
    added = None
    if config.get("addition_embed_type"):
        pooled, sizes = torch.randn(2, 1280, dtype=dtype), torch.randint(0, 1024, (2, 6))
        added = {"text_embeds": pooled, "time_ids": sizes}
        codes = theirs.add_time_proj(sizes.flatten()).view(2, -1).to(dtype)
        signals["vector"] = Vector(torch.cat([pooled, codes], 1))
    want = theirs(x, t, text, added_cond_kwargs=added).sample
    return deviation(ours(x, t, ours.prepare(signals)), want)


def compare_controlnet() -> float:
    theirs = seeded(lambda: diffusers.ControlNetModel(cross_attention_dim=768), torch.float64)
    state = theirs.state_dict()
    native = controlnet_from_diffusers(dict(theirs.config))
    probe = ControlNet.Config.of(native)
    ours = borrowed(lambda: ControlNet(probe), controlnet_diffusers(probe), state)
    x, t = torch.randn(2, 4, 16, 24, dtype=torch.float64), torch.tensor([801.0, 13.0])
    text, hint = torch.randn(2, 77, 768, dtype=torch.float64), torch.rand(2, 3, 128, 192, dtype=torch.float64)
    down, mid = theirs(x, t, text, hint, return_dict=False)
    signals = {"context": Tokens(text), "c.hint": Plane(hint)}
    residuals = ours(x, t, ours.prepare(Context(signals, run=Run((1.0, 0.0), (16, 24))), "c"))
    return max(deviation(a, b) for a, b in zip(residuals, [*down, mid], strict=True))


def compare_vae() -> float:
    theirs = seeded(lambda: diffusers.AutoencoderKL(**VAE), torch.float64)
    config = KLCodec.Config.of(kl_from_diffusers(dict(theirs.config)))
    ours = borrowed(lambda: KLCodec(config), kl_diffusers_keys(config), theirs.state_dict())
    image, z = torch.rand(1, 3, 128, 192, dtype=torch.float64) * 2 - 1, torch.randn(1, 4, 16, 24, dtype=torch.float64)
    scale = theirs.config.scaling_factor
    encoded = deviation(ours.encode(image), theirs.encode(image).latent_dist.mode() * scale)
    return max(encoded, deviation(ours.decode(z), theirs.decode(z / scale).sample))


def compare_clip(width: int, layers: int, heads: int, act: str, projection: int | None) -> float:
    config = transformers.CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
        hidden_act=act, projection_dim=projection or width, eos_token_id=49407, bos_token_id=49406, pad_token_id=49407,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    theirs = seeded(lambda: kind(config), torch.float64)
    fields = clip_from_hf({**config.to_dict(), "architectures": [kind.__name__]})
    tower = ClipConfig.of({key: value for key, value in fields.items() if key in ClipConfig.model_fields})
    state = theirs.state_dict()
    built = borrowed(
        lambda: nn.ModuleDict({"tower": ClipTower(tower)}), clip_hf_keys(tower, clip_hf_level(state)), state
    )
    ours = built["tower"]
    ids = torch.randint(0, 49000, (2, 77))
    ids[:, 0], ids[:, 20:] = 49406, 49407
    want = theirs(ids, output_hidden_states=True)
    errors = [deviation(ours(ids, layers - 1), want.hidden_states[-2])]
    if projection:
        errors.append(deviation(ours.pooled(ids), want.text_embeds))
    return max(errors)


CASES: dict[str, tuple[Callable[[], float], float]] = {
    "SD 1.5 U-Net, float64": (lambda: compare_unet(SD_UNET, torch.float64), 1e-10),
    "SD 1.5 ControlNet, float64": (compare_controlnet, 1e-10),
    "SD KL codec, float64": (compare_vae, 1e-10),
    "CLIP-L, float64": (lambda: compare_clip(768, 12, 12, "quick_gelu", None), 1e-10),
    "bigG text, float64": (lambda: compare_clip(1280, 32, 20, "gelu", 1280), 1e-10),
    "SDXL U-Net, float32": (lambda: compare_unet(XL_UNET, torch.float32), 1e-5),
    "SDXL U-Net, float64, tied": (lambda: compare_unet(XL_UNET, torch.float64, tied=True), 1e-10),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run the cases with this in their name; nothing is written then")
    given = parser.parse_args()
    torch.manual_seed(0)
    rows = []
    for name, (case, bound) in CASES.items():
        if given.only not in name:
            continue
        began = time.perf_counter()
        with torch.no_grad():
            error = case()
        gc.collect()
        rows.append(
            {"case": name, "deviation": error, "bound": bound, "seconds": round(time.perf_counter() - began, 1)}
        )
        print(f"{name:<30}{error:.2e}  (bound {bound:.0e})  {'ok' if error <= bound else 'DIFFERS'}", flush=True)
    if not given.only:
        write("full_size_parity", rows)
    raise SystemExit(any(row["deviation"] > row["bound"] for row in rows))


if __name__ == "__main__":
    main()
