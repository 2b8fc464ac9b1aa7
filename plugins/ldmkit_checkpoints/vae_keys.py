"""Native keys of first stages <-> the CompVis and diffusers layouts. COMPVIS here: also sgm and single files.

Every function takes the native config (or a mapping of it) and returns the `KeyMap` of one layout, without
a prefix: `first_stage_model.`, `vae.` and the like are the caller's to add with `keys.prefixed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ldmkit_codecs.autoencoder import AutoencoderConfig
from ldmkit_codecs.kl import KLConfig
from ldmkit_codecs.vq import VQConfig

from ldmkit_checkpoints.keys import Entry, KeyMap, as_linear, same

_QKV = ("q", "k", "v")
_DIFFUSERS_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
_DIFFUSERS_OLD_ATTENTION = {"q": "query", "k": "key", "v": "value", "out": "proj_attn"}


def kl_compvis_keys(config: KLConfig) -> KeyMap:
    """KL codec: `encoder.*`, `decoder.*`, `quant_conv.*`, `post_quant_conv.*`."""
    return {**_compvis(config), **_quant_convs(config.quant_conv, config.post_quant_conv)}


def vq_compvis_keys(config: VQConfig) -> KeyMap:
    """VQ codec: the same and `quantize.embedding.weight`."""
    return {**_compvis(config), **_codebook(), **_quant_convs(True, True)}


def kl_diffusers_keys(config: KLConfig, old_attention: bool = False) -> KeyMap:
    """diffusers' AutoencoderKL. `old_attention`: files from before 0.15, see `has_old_attention`."""
    return {**_diffusers(config, old_attention), **_quant_convs(config.quant_conv, config.post_quant_conv)}


def vq_diffusers_keys(config: VQConfig, old_attention: bool = False) -> KeyMap:
    """diffusers' VQModel."""
    return {**_diffusers(config, old_attention), **_codebook(), **_quant_convs(True, True)}


def has_old_attention(keys: Iterable[str]) -> bool:
    """Whether a diffusers file names its attention weights `query`, `key`, `value`, `proj_attn`."""
    return any(key.endswith(".proj_attn.weight") for key in keys)


def ignorable_vae_key(key: str) -> str | None:
    """Why a key of a published first stage (without prefix) may be left unread; None if it may not."""
    if key.startswith("loss."):
        return "training only: perceptual loss and discriminator"
    if key in ("quantize.used", "quantize.unknown_index"):
        return "renumbering of codebook indices, which no picture depends on"
    if key.startswith(("model_ema.", "ema.")):
        return "averaged copy of the weights"
    if key == "colorize":
        return "projection for showing label maps"
    return None


def _pair(native: str, foreign: str) -> Iterator[tuple[str, Entry]]:
    for name in ("weight", "bias"):
        yield f"{native}.{name}", same(f"{foreign}.{name}")


def _block(native: str, foreign: str, skip: str | None) -> Iterator[tuple[str, Entry]]:
    for part in ("norm1", "conv1", "norm2", "conv2"):
        yield from _pair(f"{native}.{part}", f"{foreign}.{part}")
    if skip is not None:
        yield from _pair(f"{native}.skip", f"{foreign}.{skip}")


def _codebook() -> KeyMap:
    return {"codebook.embedding.weight": same("quantize.embedding.weight")}


def _quant_convs(quant: bool, post: bool) -> KeyMap:
    found: KeyMap = {}
    for name, present in (("quant_conv", quant), ("post_quant_conv", post)):
        found.update(_pair(name, name) if present else ())
    return found


def _widths_in(config: AutoencoderConfig, half: str) -> list[int]:
    """Channels going into each level, in native level order."""
    w = config.widths
    return [w[0], *w[:-1]] if half == "encoder" else [*w[1:], w[-1]]


def _ends(half: str, norm_out: str) -> Iterator[tuple[str, Entry]]:
    yield from _pair(f"{half}.conv_in", f"{half}.conv_in")
    yield from _pair(f"{half}.norm_out", f"{half}.{norm_out}")
    yield from _pair(f"{half}.conv_out", f"{half}.conv_out")


def _compvis(config: AutoencoderConfig) -> KeyMap:
    found: KeyMap = {}
    for half, side, sample in (("encoder", "down", "downsample"), ("decoder", "up", "upsample")):
        found.update(_ends(half, "norm_out"))
        mid = f"{half}.mid"
        found.update(_block(f"{mid}.block1", f"{mid}.block_1", None))
        if config.mid_attention != "none":
            found.update(_compvis_attention(f"{mid}.attn", f"{mid}.attn_1", config.mid_attention))
        found.update(_block(f"{mid}.block2", f"{mid}.block_2", None))
        for level, width_in in enumerate(_widths_in(config, half)):
            name = f"{half}.{side}.{level}"
            for index in range(config.blocks + (half == "decoder")):
                widens = index == 0 and width_in != config.widths[level]
                block = f"{name}.block.{index}"
                found.update(_block(block, block, "nin_shortcut" if widens else None))
                if level in config.attention_levels:
                    attn = f"{name}.attn.{index}"
                    found.update(_compvis_attention(attn, attn, config.level_attention))
            if config.resample_conv and _resamples(config, half, level):
                found.update(_pair(f"{name}.resample.conv", f"{name}.{sample}.conv"))
    return found


def _resamples(config: AutoencoderConfig, half: str, level: int) -> bool:
    return level != (len(config.widths) - 1 if half == "encoder" else 0)


def _compvis_attention(native: str, foreign: str, kind: str) -> Iterator[tuple[str, Entry]]:
    if kind == "linear":
        yield f"{native}.qkv.weight", as_linear(f"{foreign}.to_qkv.weight")
        yield f"{native}.out.weight", as_linear(f"{foreign}.to_out.weight")
        yield f"{native}.out.bias", same(f"{foreign}.to_out.bias")
        return
    yield from _pair(f"{native}.norm", f"{foreign}.norm")
    for part in (*_QKV, "out"):
        theirs = f"{foreign}.{'proj_out' if part == 'out' else part}"
        yield f"{native}.{part}.weight", as_linear(f"{theirs}.weight")
        yield f"{native}.{part}.bias", same(f"{theirs}.bias")


def _diffusers(config: AutoencoderConfig, old_attention: bool) -> KeyMap:
    found: KeyMap = {}
    last = len(config.widths) - 1
    for half, side, sample in (("encoder", "down", "downsamplers"), ("decoder", "up", "upsamplers")):
        found.update(_ends(half, "conv_norm_out"))
        mid = f"{half}.mid_block"
        found.update(_block(f"{half}.mid.block1", f"{mid}.resnets.0", None))
        if config.mid_attention != "none":
            found.update(_diffusers_attention(f"{half}.mid.attn", f"{mid}.attentions.0", old_attention))
        found.update(_block(f"{half}.mid.block2", f"{mid}.resnets.1", None))
        for level, width_in in enumerate(_widths_in(config, half)):
            native = f"{half}.{side}.{level}"
            foreign = f"{half}.{side}_blocks.{level if half == 'encoder' else last - level}"
            for index in range(config.blocks + (half == "decoder")):
                widens = index == 0 and width_in != config.widths[level]
                skip = "conv_shortcut" if widens else None
                found.update(_block(f"{native}.block.{index}", f"{foreign}.resnets.{index}", skip))
                if level in config.attention_levels:
                    theirs = f"{foreign}.attentions.{index}"
                    found.update(_diffusers_attention(f"{native}.attn.{index}", theirs, old_attention))
            if config.resample_conv and _resamples(config, half, level):
                found.update(_pair(f"{native}.resample.conv", f"{foreign}.{sample}.0.conv"))
    return found


def _diffusers_attention(native: str, foreign: str, old: bool) -> Iterator[tuple[str, Entry]]:
    yield from _pair(f"{native}.norm", f"{foreign}.group_norm")
    for part, theirs in (_DIFFUSERS_OLD_ATTENTION if old else _DIFFUSERS_ATTENTION).items():
        yield f"{native}.{part}.weight", _linear(f"{foreign}.{theirs}.weight")
        yield f"{native}.{part}.bias", same(f"{foreign}.{theirs}.bias")


def _linear(key: str) -> Entry:
    # some converted files keep the 1x1 convolution's trailing axes
    return Entry((key,), lambda w: w.flatten(1) if w.ndim > 2 else w)
