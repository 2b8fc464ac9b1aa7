"""Keys of a first stage in the layout of CompVis and sgm."""

from __future__ import annotations

from ldmkit_codecs.autoencoder import AutoencoderConfig
from ldmkit_codecs.kl import KLConfig
from ldmkit_codecs.vq import VQConfig

from ldmkit_checkpoints.keys import KeyMap, as_linear, layer, renamed
from ldmkit_checkpoints.vae_keys import codebook, ends, quant_convs, resamples, residual_block, widths_in


def kl_compvis_keys(config: KLConfig) -> KeyMap:
    """KL codec: `encoder.*`, `decoder.*`, `quant_conv.*`, `post_quant_conv.*`."""
    return {**_compvis(config), **quant_convs(config.quant_conv, config.post_quant_conv)}


def vq_compvis_keys(config: VQConfig) -> KeyMap:
    """VQ codec: the same and `quantize.embedding.weight`."""
    return {**_compvis(config), **codebook(), **quant_convs(True, True)}


def _compvis(config: AutoencoderConfig) -> KeyMap:
    found: KeyMap = {}
    for half, side, sample in (("encoder", "down", "downsample"), ("decoder", "up", "upsample")):
        found.update(ends(half, "norm_out"))
        mid = f"{half}.mid"
        found.update(residual_block(f"{mid}.block1", f"{mid}.block_1", None))
        if config.mid_attention != "none":
            found.update(_attention(f"{mid}.attn", f"{mid}.attn_1", config.mid_attention))
        found.update(residual_block(f"{mid}.block2", f"{mid}.block_2", None))
        for level, width_in in enumerate(widths_in(config, half)):
            name = f"{half}.{side}.{level}"
            for index in range(config.blocks + (half == "decoder")):
                widens = index == 0 and width_in != config.widths[level]
                block = f"{name}.block.{index}"
                found.update(residual_block(block, block, "nin_shortcut" if widens else None))
                if level in config.attention_levels:
                    attn = f"{name}.attn.{index}"
                    found.update(_attention(attn, attn, config.level_attention))
            if config.resample_conv and resamples(config, half, level):
                found.update(layer(f"{name}.resample.conv", f"{name}.{sample}.conv"))
    return found


def _attention(native: str, foreign: str, kind: str) -> KeyMap:
    if kind == "linear":
        return {
            f"{native}.qkv.weight": as_linear(f"{foreign}.to_qkv.weight"),
            f"{native}.out.weight": as_linear(f"{foreign}.to_out.weight"),
            f"{native}.out.bias": renamed(f"{foreign}.to_out.bias"),
        }
    keymap = layer(f"{native}.norm", f"{foreign}.norm")
    for part, theirs in {"q": "q", "k": "k", "v": "v", "out": "proj_out"}.items():
        keymap[f"{native}.{part}.weight"] = as_linear(f"{foreign}.{theirs}.weight")
        keymap[f"{native}.{part}.bias"] = renamed(f"{foreign}.{theirs}.bias")
    return keymap
