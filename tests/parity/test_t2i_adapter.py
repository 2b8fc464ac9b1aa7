"""T2I-Adapter against diffusers' T2IAdapter with the same random weights in float64, alone and in the U-Net.

Tolerance 1e-10 of the largest value: the same function, in another order of sums.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from test_unet_diffusers import ADDED, SMALL, XL_BLOCKS, adopted, far, normal, seeded

import ldmkit
from ldmkit import Plane, Tokens, Vector, attached
from ldmkit.models.weights import write_safetensors

SD: dict[str, Any] = {
    **SMALL,
    "block_out_channels": (16, 32, 32, 32),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": 4,
}
XL: dict[str, Any] = {**SMALL, **XL_BLOCKS, **ADDED, "attention_head_dim": 4, "use_linear_projection": True}
FULL: dict[str, Any] = {"channels": [16, 32, 32, 32], "downscale_factor": 2, "in_channels": 3}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, int]]] = {
    "full": (SD, FULL, (24, 16)),
    "odd": (SD, FULL, (14, 22)),
    "one channel": (SD, {**FULL, "in_channels": 1, "num_res_blocks": 1}, (24, 16)),
    "three blocks": (SD, {**FULL, "num_res_blocks": 3}, (2, 2)),
    "light": (SD, {**FULL, "channels": [16, 32, 32], "adapter_type": "light_adapter", "num_res_blocks": 4}, (24, 16)),
    "light, odd": (SD, {**FULL, "channels": [16, 32, 32], "adapter_type": "light_adapter"}, (14, 22)),
    "xl": (XL, {**FULL, "adapter_type": "full_adapter_xl", "downscale_factor": 4}, (24, 16)),
    "xl, odd": (XL, {**FULL, "adapter_type": "full_adapter_xl", "downscale_factor": 4}, (12, 20)),
    "xl, no middle": (
        XL, {**FULL, "channels": [16, 32, 32], "adapter_type": "full_adapter_xl", "downscale_factor": 4}, (24, 16),
    ),
}  # fmt: skip
"""U-Net, adapter, and size of the hint; the latents have half of it."""


def saved(name: str, folder: Path) -> tuple[Any, Path]:
    oracle = seeded("T2IAdapter", CASES[name][1])
    oracle.save_pretrained(folder)
    return oracle, folder


@pytest.mark.parametrize("name", CASES)
def test_features_and_the_network(name: str, tmp_path: Path) -> None:
    options, _, (height, width) = CASES[name]
    theirs, folder = saved(name, tmp_path)
    adapter: Any = ldmkit.load_adapter(folder)
    assert adapter.dtype is torch.float64
    adapter = adapter.tuned(scale=0.7)
    network = seeded("UNet2DConditionModel", options)
    ours, config = adopted(network)
    hint = torch.rand(2, theirs.config.in_channels, height, width, dtype=torch.float64)
    x, tokens = normal(2, 4, height // 2, width // 2), normal(2, 5, 24, seed=3)
    t = torch.tensor([3.0, 871.0], dtype=torch.float64)
    signals: dict[str, Any] = {"context": Tokens(tokens)}
    more: dict[str, Any] = {}
    if config["addition_embed_type"]:
        pooled, sizes = normal(2, 10, seed=4), torch.arange(12.0, dtype=torch.float64).view(2, 6) * 50
        more["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
        signals["vector"] = Vector(torch.cat([pooled, network.add_time_proj(sizes.flatten()).view(2, -1).double()], 1))
    with torch.no_grad():
        features = [0.7 * feature for feature in theirs(hint)]
        for mine, other in zip(adapter(hint).values(), features, strict=True):
            assert far(mine, other) <= 1e-10
        given = [feature.clone() for feature in features]
        want = network(x, t, tokens, down_intrablock_additional_residuals=given, **more).sample
        assert not given, "the oracle has used them all"
        plain = ours(x, t, ours.prepare(signals))
        with attached(ours.ports, adapter.taps("sketch")):
            context = ours.prepare({**signals, "sketch.hint": Plane(hint)})
            context.signals = {**signals, "sketch.hint": Plane(hint)}
            context.adapters["sketch"] = adapter.prepare(context, "sketch")
            got = ours(x, t, context)
        assert far(got, want) <= 1e-10 < far(plain, want)
        assert torch.equal(ours(x, t, ours.prepare(signals)), plain)


def flat_keys(theirs: Any) -> dict[str, torch.Tensor]:
    """The original layout: in full adapters blocks are counted through, and a stage's convolution is its first's."""
    count, light = theirs.config.num_res_blocks, theirs.config.adapter_type == "light_adapter"
    found = {}
    for key, tensor in theirs.state_dict().items():
        parts = key.removeprefix("adapter.").split(".")
        if light:
            parts = [part.replace("resnets", "body") for part in parts]
        elif "resnets" in parts:
            parts = ["body", str(int(parts[1]) * count + int(parts[3])), *parts[4:]]
        elif parts[0] == "body":
            parts[1] = str(int(parts[1]) * count)
        found[".".join(parts)] = tensor
    return found


PUBLISHED: dict[str, dict[str, Any]] = {
    "sketch for SD 1": {"in_channels": 1},
    "depth for SD 1": {},
    "light": {"adapter_type": "light_adapter", "channels": [8, 16, 16], "num_res_blocks": 4},
    "sketch for XL": {"in_channels": 1, "adapter_type": "full_adapter_xl", "downscale_factor": 16},
    "lineart for XL": {"adapter_type": "full_adapter_xl", "downscale_factor": 16},
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
@pytest.mark.parametrize("prefix", [None, "", "adapter.", "Adapter.", "module."])
@pytest.mark.parametrize("name", PUBLISHED)
def test_files_without_a_config(name: str, prefix: str | None, suffix: str, tmp_path: Path) -> None:
    """Without one what was published is told by its keys; None: diffusers' keys."""
    theirs = seeded("T2IAdapter", {"channels": [8, 16, 16, 16], **PUBLISHED[name]}).float()
    folder = tmp_path / "folder"
    theirs.save_pretrained(folder)
    tensors = theirs.state_dict() if prefix is None else {prefix + k: v for k, v in flat_keys(theirs).items()}
    path = tmp_path / f"t2i{suffix}"
    if suffix == ".safetensors":
        write_safetensors(path, tensors)
    else:
        torch.save(tensors, path)
    want, got = ldmkit.load_adapter(folder), ldmkit.load_adapter(path)
    assert got.config == want.config and got.state_dict().keys() == want.state_dict().keys()
    assert all(torch.equal(tensor, want.state_dict()[key]) for key, tensor in got.state_dict().items())


def test_a_file_beside_its_config(tmp_path: Path) -> None:
    """Sizes that no published one has, in a folder of diffusers whose weights' file was named."""
    diffusers.T2IAdapter(channels=[4, 8], downscale_factor=2, in_channels=2).save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    assert ldmkit.load_adapter(file).config == ldmkit.load_adapter(tmp_path).config
    (tmp_path / "config.json").unlink()
    with pytest.raises(ldmkit.SourceError, match=r"config-needed.*\[4, 8, 3, 3\]"):
        ldmkit.load_adapter(file)
