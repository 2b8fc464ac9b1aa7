"""Keys of diffusers' AutoencoderKL and VQModel."""

from __future__ import annotations

from collections.abc import Iterable

from ldmkit_codecs.autoencoder import AutoencoderConfig
from ldmkit_codecs.kl import KLConfig
from ldmkit_codecs.vq import VQConfig

from ldmkit_checkpoints.keys import Conversion, KeyMap, layer, renamed
from ldmkit_checkpoints.vae_keys import codebook, ends, quant_convs, resamples, residual_block, spatial_norms, widths_in

_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
_HALVES = (("encoder", "down", "downsamplers"), ("decoder", "up", "upsamplers"))
_OLD_ATTENTION = {"q": "query", "k": "key", "v": "value", "out": "proj_attn"}


def kl_diffusers_keys(config: KLConfig, old_attention: bool = False) -> KeyMap:
    """Keys of AutoencoderKL. `old_attention`: files from before 0.15, see `has_old_attention`."""
    return {**_diffusers(config, old_attention), **quant_convs(config.quant_conv, config.post_quant_conv)}


def encoder_diffusers_keys(config: KLConfig, old_attention: bool = False) -> KeyMap:
    """Keys of the encoder of AutoencoderKL, and of the convolution after it."""
    return {**_diffusers(config, old_attention, _HALVES[:1]), **quant_convs(config.quant_conv, False)}


def vq_diffusers_keys(config: VQConfig, old_attention: bool = False) -> KeyMap:
    """Keys of VQModel."""
    found = _diffusers(config, old_attention)
    if config.spatial_groups is not None:
        found = spatial_norms(found)
    return {**found, **codebook(), **quant_convs(True, True)}


def has_old_attention(keys: Iterable[str]) -> bool:
    """Whether attention layers are named `query`, `key`, `value`, `proj_attn`, as before 0.15."""
    return any(key.endswith(".proj_attn.weight") for key in keys)


def _diffusers(
    config: AutoencoderConfig, old_attention: bool, halves: tuple[tuple[str, str, str], ...] = _HALVES
) -> KeyMap:
    found: KeyMap = {}
    last = len(config.widths) - 1
    for half, side, sample in halves:
        found.update(ends(half, "conv_norm_out"))
        mid = f"{half}.mid_block"
        found.update(residual_block(f"{half}.mid.block1", f"{mid}.resnets.0", None))
        if config.mid_attention != "none":
            found.update(_attention(f"{half}.mid.attn", f"{mid}.attentions.0", old_attention))
        found.update(residual_block(f"{half}.mid.block2", f"{mid}.resnets.1", None))
        for level, width_in in enumerate(widths_in(config, half)):
            native = f"{half}.{side}.{level}"
            foreign = f"{half}.{side}_blocks.{level if half == 'encoder' else last - level}"
            for index in range(config.blocks + (half == "decoder")):
                widens = index == 0 and width_in != config.widths[level]
                skip = "conv_shortcut" if widens else None
                found.update(residual_block(f"{native}.block.{index}", f"{foreign}.resnets.{index}", skip))
                if level in config.attention_levels:
                    theirs = f"{foreign}.attentions.{index}"
                    found.update(_attention(f"{native}.attn.{index}", theirs, old_attention))
            if config.resample_conv and resamples(config, half, level):
                found.update(layer(f"{native}.resample.conv", f"{foreign}.{sample}.0.conv"))
    return found


def _attention(native: str, foreign: str, old: bool) -> KeyMap:
    keymap = layer(f"{native}.norm", f"{foreign}.group_norm")
    for part, theirs in (_OLD_ATTENTION if old else _ATTENTION).items():
        keymap[f"{native}.{part}.weight"] = _linear(f"{foreign}.{theirs}.weight")
        keymap[f"{native}.{part}.bias"] = renamed(f"{foreign}.{theirs}.bias")
    return keymap


def _linear(key: str) -> Conversion:
    # some converted files keep the trailing axes of a 1x1 convolution
    return Conversion((key,), lambda w: w.flatten(1) if w.ndim > 2 else w)
