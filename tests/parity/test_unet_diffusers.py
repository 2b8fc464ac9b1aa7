"""Our U-Net against diffusers' with the same seeded random weights, in float64: the same function to 1e-10."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from ldmkit_checkpoints.diffusers.unet_config import diffusers_options, unet_from_diffusers, unet_to_diffusers
from ldmkit_checkpoints.diffusers.unet_keys import unet_diffusers
from ldmkit_denoisers.config import UNetConfig, down_levels, mid_level, up_levels
from ldmkit_denoisers.unet import UNet
from torch import Tensor

from ldmkit import Plane, Tokens, Vector
from ldmkit.errors import SourceError

PLAIN: dict[str, dict[str, Any]] = {
    "ldm-celeba": {
        "block_out_channels": (16, 32, 48, 64),
        "norm_num_groups": 8,
        "attention_head_dim": 8,
    },
    "one-head": {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": None,
    },
    "ddpm": {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, 16, 32),
        "freq_shift": 1,
        "flip_sin_to_cos": False,
        "downsample_padding": 0,
        "norm_eps": 1e-6,
        "norm_num_groups": 8,
        "act_fn": "swish",
    },
    "adm": {
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "block_out_channels": (16, 32),
        "resnet_time_scale_shift": "scale_shift",
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "norm_num_groups": 8,
        "attn_norm_num_groups": 4,
        "num_class_embeds": 7,
        "out_channels": 6,
        "in_channels": 3,
    },
    "no-norm-middle": {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, 32),
        "resnet_time_scale_shift": "scale_shift",
        "norm_num_groups": 8,
    },
    "super-resolution": {
        "in_channels": 6,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, 32),
        "norm_num_groups": 8,
        "class_embed_type": "timestep",
        "time_embedding_dim": 40,
        "add_attention": False,
    },
}
SMALL: dict[str, Any] = {"block_out_channels": (16, 32, 32), "norm_num_groups": 8, "cross_attention_dim": 24}
SD_BLOCKS: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
XL_BLOCKS: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
ADDED: dict[str, Any] = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 34,
}
CROSS: dict[str, dict[str, Any]] = {
    "sd1": {**SMALL, **SD_BLOCKS, "attention_head_dim": 4},
    "sd2": {
        **SMALL,
        **SD_BLOCKS,
        "attention_head_dim": (2, 4, 4),
        "use_linear_projection": True,
        "upcast_attention": True,
    },
    "sdxl": {
        **SMALL,
        **XL_BLOCKS,
        **ADDED,
        "attention_head_dim": (2, 4, 8),
        "transformer_layers_per_block": (1, 2, 3),
        "use_linear_projection": True,
    },
    "refiner": {
        **SMALL,
        **ADDED,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4, 4),
        "transformer_layers_per_block": 2,
        "use_linear_projection": True,
    },
    "inpaint": {**SMALL, **SD_BLOCKS, "attention_head_dim": 4, "in_channels": 9},
    "upscaler": {**SMALL, **XL_BLOCKS, "attention_head_dim": 4, "in_channels": 7, "num_class_embeds": 11},
    "unclip": {
        **SMALL,
        **SD_BLOCKS,
        "attention_head_dim": 4,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 20,
        "layers_per_block": (1, 2, 1),
    },
    "simple-projection": {
        **SMALL,
        **SD_BLOCKS,
        "attention_head_dim": 4,
        "class_embed_type": "simple_projection",
        "projection_class_embeddings_input_dim": 20,
    },
    "mixed": {
        **SMALL,
        "down_block_types": ("CrossAttnDownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 8,
        "resnet_time_scale_shift": "scale_shift",
    },
    "no-middle": {**SMALL, **SD_BLOCKS, "attention_head_dim": 4, "mid_block_type": None},
}


def seeded(kind: str, config: dict[str, Any]) -> torch.nn.Module:
    """A diffusers model in float64 with random weights, the norms' included."""
    net = getattr(diffusers, kind)(**config).double().eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = noise * 0.2 + (1.0 if parameter.ndim == 1 else 0.0)
    return net


def normal(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def adopted(oracle: Any) -> tuple[UNet, dict[str, Any]]:
    """Our network with the oracle's weights, through config translator and key map, strictly."""
    config = dict(oracle.config)
    theirs = oracle.state_dict()
    ours = UNet(unet_from_diffusers(config)).double().eval()
    keymap = unet_diffusers(ours.config, **diffusers_options(config, theirs))
    used = [key for entry in keymap.values() for key in entry.keys]
    assert sorted(used) == sorted(theirs)
    ours.load_state_dict({name: entry.read(*(theirs[k] for k in entry.keys)) for name, entry in keymap.items()})
    own = ours.state_dict()
    for name, entry in keymap.items():
        for key, tensor in zip(entry.keys, entry.write(own[name]), strict=True):
            assert torch.equal(tensor, theirs[key]), key
    return ours, config


def far(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("name", PLAIN)
def test_unet_2d_model_is_the_same_function(name: str) -> None:
    oracle = seeded("UNet2DModel", PLAIN[name])
    ours, config = adopted(oracle)
    # The oracle codes a class label in float32 and cannot be run in float64 then.
    dtype, tolerance = (torch.float32, 1e-5) if config["class_embed_type"] else (torch.float64, 1e-10)
    oracle, ours = oracle.to(dtype), ours.to(dtype)
    for h, w in ((8, 16), (16, 8)):
        x = normal(2, config["in_channels"], h, w).to(dtype)
        t = torch.tensor([3.0, 871.0], dtype=dtype)
        signals: dict[str, Any] = {}
        kwargs: dict[str, Any] = {}
        if ours.slots.get("vector"):
            ids = torch.tensor([2, 5])
            kwargs["class_labels"] = ids
            signals["vector"] = Vector(ids[:, None].to(dtype))
        if ours.slots.get("plane"):
            signals["plane"] = Plane(x[:, ours.channels :])
        with torch.no_grad():
            want = oracle(x, t, **kwargs).sample
            got = ours(x[:, : ours.channels], t, ours.prepare(signals))
        assert far(got, want) <= tolerance


@pytest.mark.parametrize("name", CROSS)
@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
def test_unet_2d_condition_model_is_the_same_function(name: str, size: tuple[int, int]) -> None:
    if name == "mixed" and size[0] % 4:
        pytest.skip("the oracle's AttnUpBlock2D knows no odd sizes")
    oracle = seeded("UNet2DConditionModel", CROSS[name])
    ours, config = adopted(oracle)
    x = normal(2, config["in_channels"], *size)
    t = torch.tensor([3.0, 871.0], dtype=torch.float64)
    tokens = normal(2, 5, 24, seed=3)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    signals: dict[str, Any] = {"context": Tokens(tokens, mask)}
    kwargs: dict[str, Any] = {"encoder_attention_mask": mask}
    if config["addition_embed_type"]:
        pooled, sizes = normal(2, 10, seed=4), torch.arange(12.0, dtype=torch.float64).view(2, 6) * 50
        kwargs["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
        codes = oracle.add_time_proj(sizes.flatten()).view(2, -1).double()
        signals["vector"] = Vector(torch.cat([pooled, codes], dim=1))
    elif ours.slots.get("vector"):
        wide = ours.slots["vector"].dim
        kwargs["class_labels"] = torch.tensor([2, 9]) if wide == 1 else normal(2, wide, seed=5)
        labels = kwargs["class_labels"]
        signals["vector"] = Vector(labels[:, None].double() if wide == 1 else labels)
    if ours.slots.get("plane"):
        signals["plane"] = Plane(x[:, ours.channels :])
    with torch.no_grad():
        want = oracle(x, t, tokens, **kwargs).sample
        got = ours(x[:, : ours.channels], t, ours.prepare(signals))
    assert far(got, want) <= 1e-10


def meaning(config: UNetConfig) -> tuple[Any, ...]:
    """A config without the difference between one value for all levels and a tuple of equal ones."""
    plain = {"depth", "mid_depth", "heads", "head_dim", "mid_heads", "blocks", "residual_resample", "mid_groups"}
    plain |= {"output_scale", "only_cross"}
    rest = config.model_dump(exclude=plain)
    plans = (down_levels(config), up_levels(config), mid_level(config))
    return (*plans, config.mid_groups or config.norm_groups, rest)


@pytest.mark.parametrize(
    "kind,name", [("UNet2DModel", n) for n in PLAIN] + [("UNet2DConditionModel", n) for n in CROSS]
)
def test_config_written_back_builds_the_same_model(kind: str, name: str) -> None:
    config = PLAIN.get(name) or CROSS[name]
    with torch.device("meta"):
        oracle = getattr(diffusers, kind)(**config)
    translated = unet_from_diffusers(dict(oracle.config))
    options = diffusers_options(dict(oracle.config))
    written = unet_to_diffusers(translated, options["vector"], size_dim=4)
    assert written.pop("_class_name") == kind
    assert meaning(unet_from_diffusers({"_class_name": kind, **written})) == meaning(translated)
    with torch.device("meta"):
        again = getattr(diffusers, kind)(**written)
    shapes = {key: value.shape for key, value in oracle.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes


def test_old_attention_names_are_recognised() -> None:
    oracle = seeded("UNet2DModel", PLAIN["one-head"])
    renamed = {
        key.replace(".to_q.", ".query.")
        .replace(".to_k.", ".key.")
        .replace(".to_v.", ".value.")
        .replace(".to_out.0.", ".proj_attn.")
        for key in oracle.state_dict()
    }
    options = diffusers_options(dict(oracle.config), renamed)
    keymap = unet_diffusers(unet_from_diffusers(dict(oracle.config)), **options)
    assert {key for entry in keymap.values() for key in entry.keys} == renamed


@pytest.mark.parametrize(
    "change,word",
    [
        ({"dual_cross_attention": True}, "dual_cross_attention"),
        ({"addition_embed_type": "image_hint"}, "addition_embed_type"),
        ({"addition_embed_type": "image"}, "encoder_hid_dim"),
        ({"encoder_hid_dim_type": "text_image_proj", "encoder_hid_dim": 8}, "encoder_hid_dim_type"),
        ({"class_embed_type": "projections"}, "class_embed_type"),
        (
            {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "cross_attention_norm": "layer_norm"},
            "cross_attention_n",
        ),
        ({"down_block_types": ["KDownBlock2D"] * 4}, "down_block_types"),
        ({"only_cross_attention": [True, False, False]}, "only_cross_attention"),
        ({"atention_head_dim": 8}, "attention_head_dim"),
        ({"up_block_types": ["UpBlock2D"] * 4}, "up_block_types"),
        ({"_class_name": "UNet3DConditionModel"}, "_class_name"),
        ({"resnet_time_scale_shift": "ada_group"}, "resnet_time_scale_shift"),
        ({"transformer_layers_per_block": [[1, 2], [1], [1], [1]]}, "transformer_layers_per_block"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(change: dict[str, Any], word: str) -> None:
    with pytest.raises(SourceError) as failure:
        unet_from_diffusers({"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768, **change})
    assert word in str(failure.value)
