"""Whole folders of diffusers' pipelines with networks that read hints, and files in settings of other people's.

Tolerance 1e-4 of the largest latent, as for the pipelines without them: float32, another order of sums, some steps on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from control_runs import TEXTS, as_tensor, far, hint, piped, start, stirred, tiny
from ldmkit_denoisers.patched import PatchedDenoiser

import ldmkit
from ldmkit.models.weights import write_safetensors

SD: dict[str, Any] = {
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
DRAWN: dict[str, Any] = {"steps": 3, "guidance": 4.0, "seeds": [2], "size": (32, 32)}
CALL: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 4.0, "output_type": "latent"}


def t2i(seed: int, **options: Any) -> Any:
    torch.manual_seed(seed)
    return diffusers.T2IAdapter(**{"channels": [32, 64, 64], "downscale_factor": 2, **options}).eval()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_adapters(count: int, tmp_path: Path) -> None:
    """diffusers strings the numbers of the folders together; its own loader does not find the third one."""
    many = [t2i(i) for i in range(count)]
    parts: Any = many[0] if count == 1 else diffusers.MultiAdapter(many)
    run = piped("StableDiffusionAdapterPipeline", tiny.stable_diffusion(**SD), adapter=parts)
    run.save_pretrained(tmp_path)
    pictures = [hint(seed=i) for i in range(count)]
    images, scales = [as_tensor(one) for one in pictures], [1.0] * count
    want = run(
        TEXTS[0], image=images[0] if count == 1 else images, height=32, width=32,
        adapter_conditioning_scale=1.0 if count == 1 else scales, latents=start([2], 32, 32), **CALL,
    ).images  # fmt: skip
    pipe = ldmkit.load(tmp_path)
    names = ["hint"] if count == 1 else [f"hint-{i + 1}" for i in range(count)]
    got = pipe({"text": TEXTS[0], **dict(zip(names, pictures, strict=True))}, **DRAWN).latents
    assert far(got, want) <= 1e-4
    assert list(pipe.adapters) == (["t2i"] if count == 1 else [f"t2i-{i + 1}" for i in range(count)])


def test_union(tmp_path: Path) -> None:
    base = tiny.stable_diffusion_xl()
    plain = dict(diffusers.ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(8, 16)).config)
    plain.pop("mid_block_type")
    own = {"num_trans_channel": 32, "num_proj_channel": 32, "num_trans_head": 4, "num_control_type": 8}
    union = stirred(diffusers.ControlNetUnionModel(**plain, **own), std=0.1)
    run = piped("StableDiffusionXLControlNetUnionPipeline", base, controlnet=union)
    run.save_pretrained(tmp_path)
    want = run(
        TEXTS[0], control_image=[as_tensor(hint())], control_mode=[6], latents=start([2], 32, 32), **CALL
    ).images  # fmt: skip
    pipe = ldmkit.load(tmp_path)
    assert far(pipe({"text": TEXTS[0], "tile": hint()}, **DRAWN).latents, want) <= 1e-4


def test_half_precision_variants_and_shards(tmp_path: Path) -> None:
    adapter = t2i(1)
    adapter.half().save_pretrained(tmp_path / "half", variant="fp16")
    assert ldmkit.load_adapter(tmp_path / "half", variant="fp16").dtype is torch.float16
    adapter.float().save_pretrained(tmp_path / "shards", max_shard_size="200KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    adapter.save_pretrained(tmp_path / "bin", safe_serialization=False)
    first, second = (ldmkit.load_adapter(tmp_path / name).state_dict() for name in ("shards", "bin"))
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())


def test_an_old_config(tmp_path: Path) -> None:
    """Fields that are left out have diffusers' defaults; a field that nobody knows is refused."""
    diffusers.T2IAdapter(channels=[8, 16], num_res_blocks=2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    few = {key: config[key] for key in ("_class_name", "channels")}
    want = ldmkit.load_adapter(tmp_path).config
    (tmp_path / "config.json").write_text(json.dumps(few))
    assert ldmkit.load_adapter(tmp_path).config == want
    for field, value, words in (
        ("adapter_type", "style_adapter", "adapter_type.*style_adapter"),
        ("use_conv", True, "unknown-parameter.*use_conv"),
        ("channels", "320", "channels"),
        ("num_res_blocks", 0, "num_res_blocks"),
        ("downscale_factor", 8.5, "downscale_factor"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, field: value}))
        with pytest.raises(ldmkit.LdmkitError, match=words):
            ldmkit.load_adapter(tmp_path)


def test_files_that_are_not_whole(tmp_path: Path) -> None:
    control = diffusers.ControlNetModel(
        block_out_channels=(64, 128), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=32,
        conditioning_embedding_out_channels=(8, 16),
    )  # fmt: skip
    tensors = control.state_dict()
    few = {key: tensor for key, tensor in tensors.items() if not key.startswith("controlnet_mid_block")}
    two = {**tensors, **t2i(0).state_dict()}
    nan = {**tensors, "controlnet_mid_block.bias": torch.full((128,), torch.nan)}
    infinite = {**tensors, "conv_in.bias": torch.full((64,), torch.inf)}
    for changed, words in (
        (few, "missing.*controlnet_mid_block"),
        (two, r"unexpected.*adapter\.body"),
        (nan, r"not-finite.*zero_mid\.bias"),
        (infinite, r"not-finite.*conv_in\.bias"),
        ({key: t for key, t in tensors.items() if "conv_out" not in key}, "missing.*conv_out"),
    ):
        write_safetensors(tmp_path / "control.safetensors", changed)
        with pytest.raises(ldmkit.WeightsError, match=words) as caught:
            ldmkit.load_adapter(tmp_path / "control.safetensors")
        assert "control.safetensors" in str(caught.value)


def test_on_patches(tmp_path: Path) -> None:
    """A T2I-Adapter's features are cut with the patch, where it begins between none of their pixels."""
    base = tiny.saved(tiny.stable_diffusion(**SD), tmp_path / "base")
    t2i(0).save_pretrained(tmp_path / "t2i")
    pipe = ldmkit.load(base)
    inputs = {"text": TEXTS[0], "hint": hint()}
    whole = pipe.with_adapter_file(tmp_path / "t2i")(inputs, **DRAWN).latents
    for kernel, stride in ((16, 16), (8, 4), (8, 3)):
        patched = pipe.with_(denoiser=PatchedDenoiser.wrap(pipe.denoiser, kernel=kernel, stride=stride))
        sketch = patched.with_adapter_file(tmp_path / "t2i")
        if stride == 3:
            with pytest.raises(ldmkit.CompositionError, match=r"not-croppable.*multiples of"):
                sketch(inputs, **DRAWN)
        else:
            assert torch.equal(sketch(inputs, **DRAWN).latents, whole) == (kernel == 16)
