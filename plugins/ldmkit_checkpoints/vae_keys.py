"""First-stage blocks whose keys follow the same pattern in the CompVis and diffusers layouts."""

from __future__ import annotations

from ldmkit_codecs.autoencoder import AutoencoderConfig

from ldmkit_checkpoints.keys import KeyMap, layers, renamed


def residual_block(native: str, foreign: str, skip: str | None) -> KeyMap:
    """A residual block; `skip` names the 1x1 convolution where the width changes."""
    names = {f"{native}.{part}": f"{foreign}.{part}" for part in ("norm1", "conv1", "norm2", "conv2")}
    return layers(names if skip is None else names | {f"{native}.skip": f"{foreign}.{skip}"})


def codebook() -> KeyMap:
    """The codebook of a VQ codec."""
    return {"codebook.embedding.weight": renamed("quantize.embedding.weight")}


def spatial_norms(keymap: KeyMap) -> KeyMap:
    """The key map with the decoder's norms replaced by spatial ones, of three layers each."""
    found: KeyMap = {}
    for native, entry in keymap.items():
        half, *_, name, leaf = native.split(".")
        if half != "decoder" or name not in ("norm", "norm1", "norm2", "norm_out"):
            found[native] = entry
            continue
        foreign = entry.keys[0].removesuffix(f".{leaf}").replace("group_norm", "spatial_norm")
        for ours, theirs in {"norm": "norm_layer", "scale": "conv_y", "shift": "conv_b"}.items():
            found[f"{native.removesuffix(leaf)}{ours}.{leaf}"] = renamed(f"{foreign}.{theirs}.{leaf}")
    return found


def quant_convs(quant: bool, post: bool) -> KeyMap:
    """The 1x1 convolutions on either side of the latent, where the codec has them."""
    present = {"quant_conv": quant, "post_quant_conv": post}
    return layers({name: name for name, has in present.items() if has})


def widths_in(config: AutoencoderConfig, half: str) -> list[int]:
    """Input channels of each level, in native order."""
    w = config.widths
    return [w[0], *w[:-1]] if half == "encoder" else [*w[1:], w[-1]]


def ends(half: str, norm_out: str) -> KeyMap:
    """First and last layers of the encoder or the decoder."""
    names = {"conv_in": "conv_in", "norm_out": norm_out, "conv_out": "conv_out"}
    return layers({f"{half}.{native}": f"{half}.{foreign}" for native, foreign in names.items()})


def resamples(config: AutoencoderConfig, half: str, level: int) -> bool:
    """Whether a level ends in a resampling layer: all but the encoder's innermost and the decoder's outermost."""
    return level != (len(config.widths) - 1 if half == "encoder" else 0)
