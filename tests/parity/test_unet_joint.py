"""The U-Nets of DeepFloyd IF, unCLIP and Kandinsky against diffusers' with the same weights, in float64: 1e-10."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.embeddings import AttentionPooling
from ldmkit_checkpoints.diffusers.unet_config import diffusers_options, unet_from_diffusers, unet_to_diffusers
from ldmkit_denoisers.prepacked import PrepackedUNet
from ldmkit_denoisers.unet import UNet
from test_unet_diffusers import adopted, far, meaning, normal, seeded
from torch import Tensor

from ldmkit import Plane, Tokens, Vector

BLOCKS: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "resnet_time_scale_shift": "scale_shift",
    "in_channels": 3,
    "out_channels": 6,
}
POOLED: dict[str, Any] = {
    "encoder_hid_dim": 24,
    "encoder_hid_dim_type": "text_proj",
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 3,
    "cross_attention_norm": "group_norm",
    "act_fn": "gelu",
}
NETS: dict[str, dict[str, Any]] = {
    "if-1": {**BLOCKS, **POOLED},
    "if-2": {
        **BLOCKS,
        **POOLED,
        "in_channels": 6,
        "layers_per_block": (1, 2),
        "class_embed_type": "timestep",
        "mid_block_scale_factor": 1.414,
        "resnet_out_scale_factor": 1.414,
        "resnet_skip_time_act": True,
        "time_embedding_act_fn": "gelu",
        "time_embedding_dim": 48,
        "only_cross_attention": (False, True),
    },
    "karlo": {**BLOCKS, "class_embed_type": "identity"},
    "kandinsky": {
        **BLOCKS,
        "in_channels": 4,
        "out_channels": 8,
        "encoder_hid_dim": 20,
        "encoder_hid_dim_type": "image_proj",
        "addition_embed_type": "image",
    },
    "image projection alone": {**BLOCKS, "encoder_hid_dim": 20, "encoder_hid_dim_type": "image_proj"},
    "a text's projection and a picture in the time": {**BLOCKS, "encoder_hid_dim": 20, "addition_embed_type": "image"},
    "only the context everywhere": {**BLOCKS, **POOLED, "only_cross_attention": True},
    "no self-attention in the middle": {**BLOCKS, "mid_block_only_cross_attention": True},
    "activations one after another": {**BLOCKS, "act_fn": "mish", "time_embedding_act_fn": "relu"},
    "no activation of times": {**BLOCKS, "resnet_skip_time_act": True},
    "joint beside transformers": {
        **BLOCKS,
        "down_block_types": ("CrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D"),
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "resnet_out_scale_factor": 2.0,
        "only_cross_attention": (True, False),
    },
    "upscaler": {
        **BLOCKS,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "in_channels": 7,
        "out_channels": 4,
        "num_class_embeds": 11,
        "only_cross_attention": (True, True),
        "transformer_layers_per_block": 2,
        "use_linear_projection": True,
        "mid_block_scale_factor": 0.5,
        "resnet_out_scale_factor": 3.0,
    },
    "one level": {**BLOCKS, "block_out_channels": (32,), "down_block_types": ("SimpleCrossAttnDownBlock2D",),
                  "up_block_types": ("SimpleCrossAttnUpBlock2D",)},
}  # fmt: skip


@contextmanager
def unrounded() -> Iterator[None]:
    """The oracle's pool rounds its weights to float32; without that its float64 is one."""
    plain, forward = torch.Tensor.float, AttentionPooling.forward

    def exact(self: Any, x: Tensor) -> Tensor:
        torch.Tensor.float = lambda y: y  # type: ignore[method-assign,assignment]
        try:
            return forward(self, x)  # type: ignore[no-any-return]
        finally:
            torch.Tensor.float = plain  # type: ignore[method-assign]

    AttentionPooling.forward = exact
    try:
        yield
    finally:
        AttentionPooling.forward = forward


def inputs(ours: UNet, config: dict[str, Any], x: Tensor, mask: Tensor | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our signals, and their keyword arguments."""
    slots, signals = ours.slots, dict[str, Any]()
    wide = config["encoder_hid_dim"] or config["cross_attention_dim"]
    tokens = normal(2, 5, wide, seed=3)
    kwargs: dict[str, Any] = {"encoder_hidden_states": tokens, "encoder_attention_mask": mask}
    if "context" in slots:
        signals["context"] = Tokens(tokens, mask)
    if "image" in slots:
        image = normal(2, slots["image"].dim, seed=4)
        kwargs["added_cond_kwargs"] = {"image_embeds": image}
        signals["image"] = Vector(image)
    if "vector" in slots:
        number = slots["vector"].dim == 1
        labels = torch.tensor([2, 9]) if number else normal(2, slots["vector"].dim, seed=5)
        kwargs["class_labels"] = labels
        signals["vector"] = Vector(labels[:, None].double() if number else labels)
    if "plane" in slots:
        signals["plane"] = Plane(x[:, ours.channels :])
    return signals, kwargs


@pytest.mark.parametrize("name", NETS)
def test_a_forward_is_theirs(name: str) -> None:
    oracle = seeded("UNet2DConditionModel", NETS[name])
    ours, config = adopted(oracle)
    padded = torch.tensor([[True] * 5, [True, True, False, True, False]])
    pooled = config["addition_embed_type"] == "text" or config["encoder_hid_dim_type"] == "image_proj"
    pooled = pooled or ours.config.mid_only_cross or any(ours.config.only_cross)
    # the oracle's pool reads no mask, and its attentions none where they read the context alone
    for size, mask in (((8, 12), None), ((4, 4), None if pooled else padded)):
        x, t = normal(2, config["in_channels"], *size), torch.tensor([3.0, 871.0], dtype=torch.float64)
        signals, kwargs = inputs(ours, config, x, mask)
        with torch.no_grad(), unrounded():
            want = oracle(x, t, **kwargs).sample
            got = ours(x[:, : ours.channels], t, ours.prepare(signals))
        assert far(got, want) <= 1e-10


@pytest.mark.parametrize("name", NETS)
def test_a_config_written_back_builds_the_same_network(name: str) -> None:
    with torch.device("meta"):
        oracle: Any = diffusers.UNet2DConditionModel(**NETS[name])
        translated = unet_from_diffusers(dict(oracle.config))
        written = unet_to_diffusers(translated, diffusers_options(dict(oracle.config))["vector"])
        kind = written.pop("_class_name")
        again: Any = getattr(diffusers, kind)(**written)
    assert kind == "UNet2DConditionModel"
    assert meaning(unet_from_diffusers(dict(again.config))) == meaning(translated)
    shapes = {key: value.shape for key, value in oracle.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes


@pytest.mark.parametrize("name", ["if-1", "if-2", "kandinsky", "upscaler", "joint beside transformers"])
def test_packed_it_is_the_same_function(name: str) -> None:
    oracle = seeded("UNet2DConditionModel", NETS[name])
    ours, config = adopted(oracle)
    x, t = normal(2, config["in_channels"], 8, 8).float(), torch.tensor([3.0, 871.0])
    signals, _ = inputs(ours, config, x.double(), None)
    ours = ours.float()
    with torch.no_grad():
        context = ours.prepare(signals)
        want = ours(x[:, : ours.channels], t, context)
        got = PrepackedUNet(ours)(x[:, : ours.channels], t, ours.prepare(signals))
    assert far(got, want) <= 2e-5  # sums in another order, float32


def test_padding_of_a_batch_mate_changes_nothing() -> None:
    """Tokens that the mask hides count neither in keys, nor in the norm of the tokens, nor in the pool."""
    oracle = seeded("UNet2DConditionModel", NETS["if-1"])
    ours, _ = adopted(oracle)
    x, t, tokens = normal(1, 3, 8, 8), torch.tensor([5.0], dtype=torch.float64), normal(1, 5, 24, seed=3)
    padded = torch.cat([tokens, normal(1, 3, 24, seed=9)], dim=1)
    mask = torch.tensor([[True] * 5 + [False] * 3])
    with torch.no_grad():
        want = ours(x, t, ours.prepare({"context": Tokens(tokens)}))
        got = ours(x, t, ours.prepare({"context": Tokens(padded, mask)}))
    assert far(got, want) <= 1e-10


@pytest.mark.parametrize(("width", "millions"), [(192, 371.6), (320, 935.4), (704, 4304.7)])
def test_full_size_deepfloyd(width: int, millions: float) -> None:
    """IF-I-M, -L and -XL."""
    config = {
        **BLOCKS, **POOLED, "block_out_channels": tuple(width * i for i in (1, 2, 3, 4)), "layers_per_block": 3,
        "down_block_types": ("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 3),
        "up_block_types": (*("SimpleCrossAttnUpBlock2D",) * 3, "ResnetUpsampleBlock2D"), "norm_num_groups": 32,
        "cross_attention_dim": 4 * width, "attention_head_dim": 64, "encoder_hid_dim": 4096,
        "addition_embed_type_num_heads": 64,
    }  # fmt: skip
    with torch.device("meta"):
        oracle: Any = diffusers.UNet2DConditionModel(**config)
        ours = UNet(unet_from_diffusers(dict(oracle.config)))
    counts = [sum(parameter.numel() for parameter in net.parameters()) for net in (ours, oracle)]
    assert counts[0] == counts[1] and round(counts[0] / 1e6, 1) == millions
