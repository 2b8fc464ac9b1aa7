"""Our first stages against diffusers' with the same seeded random weights, in float64: the same function to 1e-10."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import pytest
import torch
from ldmkit_checkpoints.diffusers.tiny import tiny_diffusers_keys, tiny_from_diffusers, tiny_to_diffusers
from ldmkit_checkpoints.diffusers.vae_config import (
    kl_from_diffusers,
    kl_to_diffusers,
    vq_from_diffusers,
    vq_to_diffusers,
)
from ldmkit_checkpoints.diffusers.vae_keys import has_old_attention, kl_diffusers_keys, vq_diffusers_keys
from ldmkit_checkpoints.keys import KeyMap
from ldmkit_codecs.kl import KLCodec
from ldmkit_codecs.tiny import TinyCodec
from ldmkit_codecs.vq import VQCodec
from torch import Tensor, nn

from ldmkit.errors import SourceError

TOLERANCE = 1e-10
"""Of the largest value, in float64: the operations are the same, only their order may differ."""

PLAIN = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (8, 16, 16),
    "norm_num_groups": 4,
    "layers_per_block": 2,
}
KL: dict[str, dict[str, Any]] = {
    "sd": {**PLAIN, "scaling_factor": 0.18215},
    "sd3": {
        **PLAIN,
        "latent_channels": 16,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
    },
    "normalised": {
        **PLAIN,
        "latents_mean": (0.1, -0.2, 0.3, 0.0),
        "latents_std": (1.5, 2.0, 0.5, 4.0),
        "scaling_factor": 0.5,
    },
    "no-mid-attention": {**PLAIN, "mid_block_add_attention": False, "layers_per_block": 1},
    "attentive": {
        **PLAIN,
        "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"),
        "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        "in_channels": 4,
        "out_channels": 1,
    },
}
VQ: dict[str, dict[str, Any]] = {
    "vq-f4": {**PLAIN, "num_vq_embeddings": 40, "latent_channels": 3, "scaling_factor": 1.0},
    "wider-codes": {**PLAIN, "num_vq_embeddings": 16, "vq_embed_dim": 8, "latent_channels": 4},
}
TINY: dict[str, dict[str, Any]] = {
    "taesd": {},
    "taesd3": {"latent_channels": 16},
    "shallow": {
        "encoder_block_out_channels": (12, 12),
        "decoder_block_out_channels": (12, 12),
        "num_encoder_blocks": (1, 2),
        "num_decoder_blocks": (2, 1),
        "scaling_factor": 0.7,
        "shift_factor": 0.1,
    },
}


def randomised(module: nn.Module) -> nn.Module:
    """Seeded weights of about the size that keeps activations near 1; norms and biases off their usual 1 and 0."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        spread = 0.8 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.1
        parameter.data = values * spread + (parameter.ndim == 1) * parameter.detach().double()
    return module.double().eval()


def read(keymap: KeyMap, file: Mapping[str, Tensor]) -> dict[str, Tensor]:
    assert {key for entry in keymap.values() for key in entry.keys} == set(file)
    return {native: entry.read(*(file[key] for key in entry.keys)) for native, entry in keymap.items()}


def written(keymap: KeyMap, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    assert set(keymap) == set(state)
    pairs = [zip(entry.keys, entry.write(state[native]), strict=True) for native, entry in keymap.items()]
    return {key: tensor for pair in pairs for key, tensor in pair}


def near(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    error = (ours - theirs).abs().max() / theirs.abs().max()
    assert error <= TOLERANCE, float(error)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def round_trip(keymap: KeyMap, codec: nn.Module, again: nn.Module) -> None:
    """Our weights and config make diffusers' module again, strictly, with the weights it had."""
    file = written(keymap, codec.state_dict())
    again.double().load_state_dict(file, strict=True)
    assert all(torch.equal(tensor, file[key]) for key, tensor in again.state_dict().items())


@pytest.mark.parametrize("name", KL)
def test_kl(name: str) -> None:
    theirs = randomised(diffusers.AutoencoderKL(**KL[name]))
    codec = KLCodec(kl_from_diffusers(dict(theirs.config))).double().eval()
    keymap = kl_diffusers_keys(codec.config)
    codec.load_state_dict(read(keymap, theirs.state_dict()), strict=True)
    images = noise(2, codec.config.in_channels, 12, 20)
    with torch.no_grad():
        distribution = theirs.encode(images).latent_dist
        posterior = codec.posterior(images)
        near(posterior.mean, distribution.mean)
        near(posterior.logvar, distribution.logvar)
        near(posterior.kl(), distribution.kl())
        drawn = noise(*posterior.mean.shape)
        near(codec.encode(images, drawn), scaled(distribution.mean + distribution.std * drawn, theirs.config))
        near(codec.encode(images), scaled(distribution.mode(), theirs.config))
        near(codec.decode(scaled(drawn, theirs.config)), theirs.decode(drawn).sample)
    options = kl_to_diffusers(codec.config)
    assert options.pop("_class_name") == "AutoencoderKL"
    again = diffusers.AutoencoderKL(**options)
    round_trip(keymap, codec, again)
    rebuilt = KLCodec.Config.of(kl_from_diffusers(dict(again.config)))
    apart = {"scale": 1.0, "shift": 0.0}
    assert rebuilt.model_copy(update=apart) == codec.config.model_copy(update=apart)
    with torch.no_grad():
        near(scaled(drawn, again.config), scaled(drawn, theirs.config))


def scaled(raw: Tensor, config: Any) -> Tensor:
    """What diffusers' pipelines do between the autoencoder and the denoiser."""
    if config.latents_mean is not None:
        mean, std = (per_channel(v) for v in (config.latents_mean, config.latents_std))
        return (raw - mean) * config.scaling_factor / std
    return (raw - (config.shift_factor or 0.0)) * config.scaling_factor


def per_channel(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)


@pytest.mark.parametrize("name", ["sd", "attentive"])
def test_attention_names_of_old_files(name: str) -> None:
    """Files from before 0.15 hold `query`, `key`, `value`, `proj_attn`; diffusers still reads those, so it converts."""
    theirs = randomised(diffusers.AutoencoderKL(**KL[name]))
    codec = KLCodec(kl_from_diffusers(dict(theirs.config))).double().eval()
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for key, tensor in theirs.state_dict().items():
        for new, before in names.items():
            key = key.replace(f".{new}.", f".{before}.")
        is_conv = key.endswith((".query.weight", ".key.weight"))
        old[key] = tensor[..., None, None] if is_conv else tensor
    assert has_old_attention(old) and not has_old_attention(theirs.state_dict())
    codec.load_state_dict(read(kl_diffusers_keys(codec.config, old_attention=True), old), strict=True)
    latents = noise(1, 4, 3, 5)
    with torch.no_grad():
        near(codec.decode(latents * codec.config.scale), theirs.decode(latents).sample)


@pytest.mark.parametrize("name", VQ)
def test_vq(name: str) -> None:
    theirs = randomised(diffusers.VQModel(**VQ[name]))
    images = noise(2, 3, 12, 20)
    with torch.no_grad():
        latents = theirs.encode(images).latents
        entries = theirs.quantize.embedding.weight
        entries.copy_(latents.mean((0, 2, 3)) + latents.std((0, 2, 3)) * noise(*entries.shape))
    codec = VQCodec(vq_from_diffusers(dict(theirs.config))).double().eval()
    keymap = vq_diffusers_keys(codec.config)
    codec.load_state_dict(read(keymap, theirs.state_dict()), strict=True)
    with torch.no_grad():
        near(codec.encode(images), latents * codec.config.scale)
        quant, loss, (_, _, codes) = theirs.quantize(latents)
        ours = codec.quantise(latents)
        assert torch.equal(ours.codes.flatten(), codes)
        assert len(codes.unique()) > 4
        near(ours.quant, quant)
        near(ours.loss, loss)
        near(codec.decode(latents * codec.config.scale), theirs.decode(latents).sample)
        near(codec.decode_raw(latents), theirs.decode(latents, force_not_quantize=True).sample)
    options = vq_to_diffusers(codec.config)
    assert options.pop("_class_name") == "VQModel"
    again = diffusers.VQModel(**options)
    round_trip(keymap, codec, again)
    assert vq_from_diffusers(dict(again.config)) == vq_from_diffusers(dict(theirs.config))


@pytest.mark.parametrize("name", TINY)
def test_tiny(name: str) -> None:
    theirs = randomised(diffusers.AutoencoderTiny(**TINY[name]))
    codec = TinyCodec(tiny_from_diffusers(dict(theirs.config))).double().eval()
    keymap = tiny_diffusers_keys(codec.config)
    codec.load_state_dict(read(keymap, theirs.state_dict()), strict=True)
    images = noise(1, 3, 16, 24)
    scale, shift = theirs.config.scaling_factor, theirs.config.shift_factor
    with torch.no_grad():
        latents = theirs.encode(images).latents
        near(codec.encode(images), (latents - shift) * scale)
        near(codec.decode((latents - shift) * scale), theirs.decode(latents).sample)
    options = tiny_to_diffusers(codec.config)
    assert options.pop("_class_name") == "AutoencoderTiny"
    again = diffusers.AutoencoderTiny(**options)
    round_trip(keymap, codec, again)
    assert tiny_from_diffusers(dict(again.config)) == tiny_from_diffusers(dict(theirs.config))


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "misspelt": (kl_from_diffusers, {"block_out_chanels": (8,)}, "block_out_channels"),
    "another norm": (vq_from_diffusers, {"norm_type": "layer"}, "layer"),
    "other activation": (kl_from_diffusers, {"act_fn": "gelu"}, "gelu"),
    "other blocks": (kl_from_diffusers, {"down_block_types": ("ResnetDownsampleBlock2D",)}, "ResnetDownsampleBlock2D"),
    "lopsided attention": (
        kl_from_diffusers,
        {"down_block_types": ("AttnDownEncoderBlock2D",), "norm_num_groups": 4},
        "different levels",
    ),
    "half a normalisation": (kl_from_diffusers, {"latents_mean": (0.0,) * 4}, "latents_std"),
    "mixed widths": (tiny_from_diffusers, {"encoder_block_out_channels": (8, 16, 16, 16)}, "[8, 16, 64]"),
    "tiny with silu": (tiny_from_diffusers, {"act_fn": "silu"}, "silu"),
    "groups": (kl_from_diffusers, {"block_out_channels": (30,)}, "norm_num_groups 32"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_config(case: str) -> None:
    make, config, words = REFUSED[case]
    with pytest.raises(SourceError) as caught:
        make(config)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [{"mid_attention": "linear"}, {"tanh_out": True}, {"resample_conv": False}, {"z_channels": 4, "embed_dim": 3}],
)
def test_refused_export(config: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match=r"source\.inexpressible"):
        kl_to_diffusers(config)


def test_pooled_tiny_has_no_diffusers_form() -> None:
    config = TinyCodec.Config.of({"encoder_pool": True, "decoder_pool": True})
    for make in (tiny_to_diffusers, tiny_diffusers_keys):
        with pytest.raises(SourceError, match="pooled"):
            make(config)
