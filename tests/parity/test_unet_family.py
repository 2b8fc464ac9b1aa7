"""The published U-Nets without a golden model, by the numbers of keys and parameters that were published or counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ldmkit_checkpoints.compvis.unet_config import unet_from_compvis
from ldmkit_checkpoints.compvis.unet_keys import unet_compvis
from ldmkit_denoisers.unet import UNet

from ldmkit.errors import SourceError

SD: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "use_spatial_transformer": True,
    "transformer_depth": 1,
    "use_checkpoint": True,
    "legacy": False,
}
FACE: dict[str, Any] = {
    "image_size": 64,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 224,
    "attention_resolutions": [8, 4, 2],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 3, 4],
    "num_head_channels": 32,
}
FAMILY: dict[str, tuple[dict[str, Any], int, float]] = {
    "ffhq256": (FACE, 3, 274.1),
    "cin256": (
        {
            **SD,
            "legacy": True,
            "model_channels": 256,
            "channel_mult": [1, 2, 4],
            "num_head_channels": 32,
            "context_dim": 512,
        },
        4,
        395.0,
    ),
    "txt2img-1p4B": ({**SD, "num_heads": 8, "context_dim": 1280}, 4, 872.3),
    "semantic512": (
        {
            "image_size": 128,
            "in_channels": 6,
            "out_channels": 3,
            "model_channels": 128,
            "num_res_blocks": 2,
            "attention_resolutions": [32, 16, 8],
            "channel_mult": [1, 4, 8],
            "num_heads": 8,
        },
        3,
        215.2,
    ),
    "inpainting_big": (
        {
            "image_size": 64,
            "in_channels": 7,
            "out_channels": 3,
            "model_channels": 256,
            "num_res_blocks": 2,
            "attention_resolutions": [8, 4, 2],
            "channel_mult": [1, 2, 3, 4],
            "num_heads": 8,
            "resblock_updown": True,
        },
        3,
        387.2,
    ),
    "rdm768": (
        {
            **SD,
            "in_channels": 16,
            "out_channels": 16,
            "model_channels": 448,
            "channel_mult": [1, 2, 3, 4],
            "num_head_channels": 32,
            "context_dim": 768,
        },
        16,
        1335.5,
    ),
    "sd1": ({**SD, "num_heads": 8, "context_dim": 768}, 4, 859.5),
    "sd2": (
        {**SD, "num_head_channels": 64, "use_linear_in_transformer": True, "context_dim": 1024, "use_fp16": True},
        4,
        865.9,
    ),
    "sdxl-refiner": (
        {
            "adm_in_channels": 2560,
            "num_classes": "sequential",
            "use_checkpoint": True,
            "in_channels": 4,
            "out_channels": 4,
            "model_channels": 384,
            "attention_resolutions": [4, 2],
            "num_res_blocks": 2,
            "channel_mult": [1, 2, 4, 4],
            "num_head_channels": 64,
            "use_linear_in_transformer": True,
            "transformer_depth": 4,
            "context_dim": [1280, 1280, 1280, 1280],
            "spatial_transformer_attn_type": "softmax-xformers",
        },
        4,
        2259.5,
    ),
}
KEYS = {"ffhq256": 368, "sd1": 686, "sd2": 686, "sdxl-refiner": 1220}


@pytest.mark.parametrize("name", FAMILY)
def test_the_family_has_its_published_size(name: str) -> None:
    params, channels, millions = FAMILY[name]
    config = unet_from_compvis(params, channels)
    with torch.device("meta"):
        net = UNet(config)
    keymap = unet_compvis(config)
    assert set(keymap) == set(net.state_dict())
    used = [key for entry in keymap.values() for key in entry.keys]
    assert len(used) == len(set(used))
    if name in KEYS:
        assert len(used) == KEYS[name]
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(
    "change,word",
    [
        ({"num_head": 8}, "num_heads"),
        ({"attention_resolutions": None}, "attention_resolutions"),
        ({"n_embed": 512}, "n_embed"),
        ({"dims": 3}, "dims"),
        ({"num_heads_upsample": 4}, "num_heads_upsample"),
        ({"num_classes": "many"}, "num_classes"),
        ({"adm_in_channels": 4}, "adm_in_channels"),
        ({"channel_mult": [2, 4]}, "channel_mult"),
        ({"use_spatial_transformer": True}, "context_dim"),
        ({"num_head_channels": -1}, "num_heads"),
        ({"num_res_blocks": [1, 2]}, "num_res_blocks"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(change: dict[str, Any], word: str) -> None:
    with pytest.raises(SourceError) as failure:
        unet_from_compvis({**FACE, **change}, 3)
    assert word in str(failure.value)
