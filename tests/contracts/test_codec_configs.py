"""Configs of first stages in the original yaml, and the tiny autoencoders' layout: what is read, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from ldmkit_checkpoints.compvis.vae_config import first_stage_from_compvis, kl_from_compvis, vq_from_compvis
from ldmkit_checkpoints.tiny.keys import is_tiny_sequential, tiny_from_sequential, tiny_sequential_keys
from ldmkit_checkpoints.unread import ignorable_vae_key
from ldmkit_codecs.tiny import TinyCodec
from ldmkit_codecs.vq import VQCodec

from ldmkit.errors import SourceError

DDCONFIG = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def test_compvis_parameters() -> None:
    params = {"embed_dim": 4, "ddconfig": {**DDCONFIG, "attn_resolutions": [128], "attn_type": "linear"}}
    native = kl_from_compvis({**params, "ckpt_path": "elsewhere", "monitor": "x", "lossconfig": {"target": "y"}})
    assert native["attention_levels"] == [1] and native["mid_attention"] == native["level_attention"] == "linear"
    none = {**DDCONFIG, "double_z": False, "attn_resolutions": [128], "attn_type": "none"}
    native = vq_from_compvis({"embed_dim": 4, "n_embed": 16, "ddconfig": none, "remap": "used.npy"})
    config = VQCodec.Config.of(native)
    assert isinstance(config, VQCodec.Config) and config.attention_levels == () and config.mid_attention == "none"
    assert first_stage_from_compvis({"target": "ldm.models.autoencoder.IdentityFirstStage"}) == ("identity", {})


BAD_YAML: dict[str, tuple[dict[str, Any], str]] = {
    "target": ({"target": "ldm.models.autoencoder.AutoencoderKl"}, "AutoencoderKL"),
    "parameter": ({"params": {"embed_dims": 4, "ddconfig": DDCONFIG}}, "embed_dims"),
    "ddconfig parameter": ({"params": {"embed_dim": 4, "ddconfig": {**DDCONFIG, "chh": 1}}}, "ddconfig.chh"),
    "missing": ({"params": {"ddconfig": DDCONFIG}}, "embed_dim"),
    "ddconfig missing": ({"params": {"embed_dim": 4}}, "ddconfig"),
    "ddconfig no mapping": ({"params": {"embed_dim": 4, "ddconfig": [1]}}, "mapping"),
    "double_z": ({"params": {"embed_dim": 4, "ddconfig": {**DDCONFIG, "double_z": False}}}, "double_z"),
    "features": ({"params": {"embed_dim": 4, "ddconfig": {**DDCONFIG, "give_pre_end": True}}}, "give_pre_end"),
    "attention": ({"params": {"embed_dim": 4, "ddconfig": {**DDCONFIG, "attn_type": "flash"}}}, "flash"),
    "not a number": ({"params": {"embed_dim": 4, "ddconfig": {**DDCONFIG, "ch": "wide"}}}, "ch"),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_bad_yaml(case: str) -> None:
    section, words = BAD_YAML[case]
    with pytest.raises(SourceError) as caught:
        first_stage_from_compvis({"target": "ldm.models.autoencoder.AutoencoderKL", **section})
    assert words in str(caught.value)


def test_ignorable_keys() -> None:
    assert ignorable_vae_key("loss.discriminator.main.0.weight") and ignorable_vae_key("quantize.used")
    assert ignorable_vae_key("encoder.conv_in.weight") is None


def test_sequential_tiny_files() -> None:
    """The published pooled model's layout: positions 3 to 5 of the decoder and 11 to 13 of the encoder are pooled."""
    codec = TinyCodec({"latent_channels": 32, "encoder_pool": True, "decoder_pool": True})
    keymap = tiny_sequential_keys(codec.config)
    state = codec.state_dict()
    assert set(keymap) == set(state)
    shapes = {entry.keys[0]: tuple(state[native].shape) for native, entry in keymap.items()}
    encoder = {key.removeprefix("encoder."): shape for key, shape in shapes.items() if key.startswith("encoder.")}
    decoder = {key.removeprefix("decoder."): shape for key, shape in shapes.items() if key.startswith("decoder.")}
    assert encoder["0.weight"] == (64, 3, 3, 3) and encoder["14.weight"] == (32, 64, 3, 3) and "2.bias" not in encoder
    assert encoder["11.pool.0.weight"] == (256, 64, 1, 1) and "10.pool.0.weight" not in encoder
    assert decoder["1.weight"] == (64, 32, 3, 3) and decoder["19.weight"] == (3, 64, 3, 3) and "7.bias" not in decoder
    assert decoder["5.pool.1.bias"] == (256,) and decoder["18.conv.4.weight"] == (64, 64, 3, 3)
    assert is_tiny_sequential(encoder) and is_tiny_sequential(decoder) and not is_tiny_sequential(shapes)
    assert TinyCodec.Config.of(tiny_from_sequential(encoder, decoder)) == codec.config
    with pytest.raises(SourceError, match=r"3\.attn"):
        tiny_from_sequential({**encoder, "3.attn.weight": (1,)}, decoder)
    with pytest.raises(SourceError, match="no blocks"):
        tiny_from_sequential({}, decoder)
