"""Every field of diffusers' U-Nets and ControlNet: outputs equal to theirs, or a refusal that names the field."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
from ldmkit_checkpoints.diffusers.controlnet import controlnet_from_diffusers
from ldmkit_checkpoints.diffusers.unet_config import unet_from_diffusers
from network_fields import BASES, TOLERANCE, Options, class_of, difference, edited, filled, loaded, made
from safetensors.torch import load_file, save_file

import ldmkit

ADDED: Options = {"addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 34}
COMMON: dict[str, list[Any]] = {
    "sample_size": [16, [8, 16]],
    "in_channels": [3, 9],
    "out_channels": [3, 8],
    "center_input_sample": [True],
    "time_embedding_type": ["fourier", "learned"],
    "time_embedding_dim": [40],
    "freq_shift": [0.5],
    "flip_sin_to_cos": [False, None],
    "block_out_channels": [[32, 16], [16], 16],
    "layers_per_block": [2, [1, 2], 0],
    "mid_block_scale_factor": [1.0, 0.5, 0],
    "downsample_padding": [0, 2],
    "dropout": [0.5],
    "act_fn": ["swish", "mish", "GELU", "tanh"],
    "attention_head_dim": [2, 3, None],
    "norm_num_groups": [4, 3, None],
    "norm_eps": [1e-2, "x"],
    "resnet_time_scale_shift": ["scale_shift", "spatial"],
    "class_embed_type": ["timestep", "identity", "projection"],
    "num_class_embeds": [5],
    "num_train_timesteps": [10],
    "mid_block_type": [None, "UNetMidBlock2DSimpleCrossAttn"],
}
PLAIN: dict[str, list[Any]] = {
    **COMMON,
    "downsample_type": ["resnet", "none"],
    "upsample_type": ["resnet"],
    "attn_norm_num_groups": [2],
    "add_attention": [False],
    "down_block_types": [["ResnetDownsampleBlock2D", "AttnDownBlock2D"], ["AttnSkipDownBlock2D", "DownBlock2D"]],
    "up_block_types": [["AttnUpBlock2D", "ResnetUpsampleBlock2D"], ["UpBlock2D", "AttnUpBlock2D"]],
}
CROSS: dict[str, list[Any]] = {
    **COMMON,
    "attention_head_dim": [[2, 4], [4], 3],
    "cross_attention_dim": [8, [24, 24], [24, 8], None],
    "only_cross_attention": [[False, False], [True, False], True, [True], 1],
    "transformer_layers_per_block": [2, [2, 1], [[1, 2], [1]]],
    "reverse_transformer_layers_per_block": [[2, 1], [[1, 1], [1, 2]]],
    "encoder_hid_dim": [24],
    "encoder_hid_dim_type": ["text_proj", "image_proj", "text_image_proj"],
    "num_attention_heads": [4, [2, 4]],
    "dual_cross_attention": [True],
    "use_linear_projection": [True],
    "class_embed_type": ["timestep", "identity", "projection", "simple_projection"],
    "addition_embed_type": ["text_time", "text", "image", "text_image", "image_hint"],
    "addition_time_embed_dim": [8],
    "addition_embed_type_num_heads": [8],
    "projection_class_embeddings_input_dim": [20],
    "upcast_attention": [True, None],
    "resnet_skip_time_act": [True],
    "resnet_out_scale_factor": [1, 0.5, "x"],
    "time_embedding_act_fn": ["silu", "gelu", "x"],
    "timestep_post_act": ["silu"],
    "time_cond_proj_dim": [8],
    "conv_in_kernel": [1, 5],
    "conv_out_kernel": [1],
    "attention_type": ["gated"],
    "class_embeddings_concat": [True],
    "mid_block_only_cross_attention": [False, True],
    "cross_attention_norm": ["layer_norm", "group_norm", "x"],
    "down_block_types": [["CrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D"], ["DownBlock2D"], "DownBlock2D"],
    "up_block_types": [["UpBlock2D", "AttnUpBlock2D"], ["UpBlock2D", "SimpleCrossAttnUpBlock2D"]],
}
CONTROL: dict[str, list[Any]] = {
    **{field: values[:1] for field, values in CROSS.items()},
    "down_block_types": [["DownBlock2D", "CrossAttnDownBlock2D"], ["DownBlock2D"]],
    "conditioning_channels": [1, 6, None],
    "conditioning_embedding_out_channels": [[4], [4, 4, 8], None, []],
    "controlnet_conditioning_channel_order": ["bgr"],
    "global_pool_conditions": [True],
}
JOINT: dict[str, list[Any]] = {
    **{field: values[:2] for field, values in CROSS.items()},
    "attention_head_dim": [16, [4, 8], 3],
    "cross_attention_dim": [64, 33, [32, 32]],
    "only_cross_attention": [[False, True], True],
    "mid_block_only_cross_attention": [True],
    "encoder_hid_dim": [12, None],
    "encoder_hid_dim_type": [None, "image_proj"],
    "addition_embed_type": [None, "image"],
    "addition_embed_type_num_heads": [2, 5],
    "cross_attention_norm": [None, "layer_norm"],
    "act_fn": ["gelu", "relu"],
    "mid_block_type": ["UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None],
    "resnet_out_scale_factor": [1.414],
    "down_block_types": [["ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"], ["SimpleCrossAttnDownBlock2D"] * 2],
    "up_block_types": [["SimpleCrossAttnUpBlock2D", "UpBlock2D"], ["SimpleCrossAttnUpBlock2D"] * 2],
}
VALUES = {"UNet2DModel": PLAIN, "UNet2DConditionModel": CROSS, "joint": JOINT, "ControlNetModel": CONTROL}
NEEDS: dict[tuple[str, str], Options] = {
    ("addition_embed_type", "text_time"): ADDED,
    ("class_embed_type", "projection"): {"projection_class_embeddings_input_dim": 20},
    ("encoder_hid_dim_type", "text_proj"): {"encoder_hid_dim": 12},
    ("encoder_hid_dim_type", "image_proj"): {"encoder_hid_dim": 12},
    ("encoder_hid_dim_type", "text_image_proj"): {"encoder_hid_dim": 12},
    ("addition_embed_type", "text"): {"addition_embed_type_num_heads": 4},
    ("addition_embed_type", "image"): {"encoder_hid_dim": 12},
    ("class_embed_type", "simple_projection"): {"projection_class_embeddings_input_dim": 20},
}
"""What else a value needs to make sense."""
BESIDE: dict[tuple[str, str], Options] = {
    ("encoder_hid_dim_type", "image_proj"): {"addition_embed_type": "image"},
}


def fields(name: str) -> list[str]:
    return [key for key in inspect.signature(class_of(name).__init__).parameters if key != "self"]


def check(name: str, folder: Path, changes: Options, drop: str | None = None) -> None:
    """Equal outputs; or a refusal, in our words and with the field's name."""
    theirs = made(name, folder, changes, drop)
    try:
        ours = loaded(name, folder)
    except ldmkit.LdmkitError as error:
        named = any(key in str(error) for key in [*changes, drop or "weights"])
        # a default that the weights contradict: both refuse them, or they fill in random ones
        assert named or ((theirs is None or drop is not None) and error.code.startswith("weights.")), str(error)
        return
    assert theirs is not None, f"{changes or drop}: loaded here, but not there"
    assert difference(name, theirs, ours) < TOLERANCE


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in BASES for field in fields(name)])
def test_a_field(name: str, field: str, tmp_path: Path) -> None:
    assert VALUES[name][field], "a field of the installed class without a value to try"
    for i, value in enumerate(VALUES[name][field]):
        more = NEEDS.get((field, value), {}) if isinstance(value, str) else {}
        if name == "joint":  # what stands beside the value, where the base's does not go with it
            more = {key: v for key, v in more.items() if key not in BASES[name]}
            more |= BESIDE.get((field, value), {}) if isinstance(value, str) else {}
        check(name, tmp_path / str(i), {field: value, **more})
    check(name, tmp_path / "missing", {}, field)


def read(name: str, config: Options) -> Any:
    reader: Any = controlnet_from_diffusers if name == "ControlNetModel" else unet_from_diffusers
    return reader({"_class_name": class_of(name).__name__, **config})


@pytest.mark.parametrize("middle", [None, "UNetMidBlock2DCrossAttn"])
@pytest.mark.parametrize("depth", [[1, 0], [0, 1], [2, 0]], ids=str)
def test_levels_without_transformers(depth: list[int], middle: str | None, tmp_path: Path) -> None:
    """As pruned models of SDXL have them; the second level of this one has no attention, the middle follows it."""
    changes = {"transformer_layers_per_block": depth, "mid_block_type": middle}
    check("UNet2DConditionModel", tmp_path, changes)
    if middle is None and depth[0]:
        loaded("UNet2DConditionModel", tmp_path)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("key", ["attention_head_dims", "num_attention_head", "norm_num_group"])
def test_a_misspelt_field_is_named(name: str, key: str) -> None:
    with pytest.raises(ldmkit.SourceError, match=key):
        read(name, {**BASES[name], key: 8})


WORDS: list[Any] = [None, "x", -1, 0, 1.5, [], {}, True, [None], ["x", "y"], [0, 0], [[1], [2]], float("nan")]


@pytest.mark.parametrize("name", BASES)
def test_values_of_another_type_are_no_raw_error(name: str) -> None:
    refused = 0
    for field in fields(name):
        for value in WORDS:
            try:
                read(name, {**BASES[name], field: value})
            except ldmkit.LdmkitError as error:
                refused += 1
                assert field in str(error), (field, value, str(error))
    assert refused > 8 * len(fields(name))


OLD = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def test_a_file_of_the_first_releases(tmp_path: Path) -> None:
    """Attention under its old names, UNetRes before the blocks', most fields absent."""
    options = BASES["UNet2DModel"] | {"attention_head_dim": 16}
    theirs = filled(diffusers.UNet2DModel(**options))
    theirs.save_pretrained(tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    renamed = {}
    for key, tensor in load_file(weights).items():
        for new, old in OLD.items():
            key = key.replace(new, old)
        renamed[key] = tensor
    save_file(renamed, weights)
    prefixed = {key: [f"UNetRes{block}" for block in options[key]] for key in ("down_block_types", "up_block_types")}
    kept = {key: value for key, value in options.items() if key not in prefixed}
    named = {"_class_name": "UNet2DModel", "_diffusers_version": "0.1.2"}
    (tmp_path / "config.json").write_text("{}")
    edited(tmp_path, {**named, **kept, **prefixed})
    again = diffusers.UNet2DModel.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    ours = loaded("UNet2DModel", tmp_path)
    assert difference("UNet2DModel", theirs, ours) < TOLERANCE
    assert difference("UNet2DModel", again, ours) < TOLERANCE
