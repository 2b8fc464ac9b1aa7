"""Tiny autoencoders: keys and configs of both published layouts.

Sequential: two files, `encoder` and `decoder`, with the positions of a flat list of layers as names
(`0.weight`, `1.conv.0.weight`, ...). diffusers (AutoencoderTiny): the same lists in one file under
`encoder.layers.` and `decoder.layers.`, the decoder's without its first, parameterless layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ldmkit_codecs.tiny import TinyConfig

from ldmkit.errors import SourceError
from ldmkit_checkpoints.keys import Entry, KeyMap, same
from ldmkit_checkpoints.vae_config import NATIVE, checked, inexpressible, known_only, numbers, public, scaling

_CONVS = {"conv1": "conv.0", "conv2": "conv.2", "conv3": "conv.4"}
_POOL = r"pool\.(?:0\.weight|1\.(?:weight|bias)|3\.weight)"
_KEY = re.compile(rf"\d+\.(?:weight|bias|conv\.[024]\.(?:weight|bias)|{_POOL})")


def tiny_sequential_keys(config: TinyConfig) -> KeyMap:
    """Foreign keys carry the file's name in front: `encoder.0.weight` is `0.weight` of the encoder's file."""
    return {**_encoder(config, "encoder."), **_decoder(config, "decoder.", skipped=0)}


def tiny_diffusers_keys(config: TinyConfig) -> KeyMap:
    """diffusers' AutoencoderTiny.

    Raises:
        SourceError: a config with pooled branches, which that class does not have.
    """
    if config.encoder_pool or config.decoder_pool:
        raise inexpressible("pooled middle blocks")
    return {**_encoder(config, "encoder.layers."), **_decoder(config, "decoder.layers.", skipped=1)}


def _encoder(config: TinyConfig, prefix: str) -> KeyMap:
    found: KeyMap = {}
    position = 0
    last = len(config.encoder_blocks) - 1
    for level, blocks in enumerate(config.encoder_blocks):
        found.update(_conv(f"encoder.entry.{level}", f"{prefix}{position}", bias=level == 0))
        position += 1
        found.update(_blocks(f"encoder.stage.{level}", prefix, position, blocks, config.encoder_pool and level == last))
        position += blocks
    found.update(_conv("encoder.conv_out", f"{prefix}{position}"))
    return found


def _decoder(config: TinyConfig, prefix: str, skipped: int) -> KeyMap:
    found: KeyMap = {}
    last = len(config.decoder_blocks) - 1
    position = 1 - skipped  # after the squashing of the latent
    found.update(_conv("decoder.conv_in", f"{prefix}{position}"))
    position += 2  # and an activation
    for level, blocks in enumerate(config.decoder_blocks):
        found.update(_blocks(f"decoder.stage.{level}", prefix, position, blocks, config.decoder_pool and level == 0))
        position += blocks
        if level != last:
            position += 1  # the nearest-neighbour layer
            found.update(_conv(f"decoder.doubling.{level}", f"{prefix}{position}", bias=False))
            position += 1
    found.update(_conv("decoder.conv_out", f"{prefix}{position}"))
    return found


def _blocks(native: str, prefix: str, position: int, blocks: int, pool: bool) -> Iterator[tuple[str, Entry]]:
    for index in range(blocks):
        ours, theirs = f"{native}.{index}", f"{prefix}{position + index}"
        if pool:
            yield from _conv(f"{ours}.pool.expand", f"{theirs}.pool.0", bias=False)
            yield from _conv(f"{ours}.pool.norm", f"{theirs}.pool.1")
            yield from _conv(f"{ours}.pool.squeeze", f"{theirs}.pool.3", bias=False)
        for conv, name in _CONVS.items():
            yield from _conv(f"{ours}.{conv}", f"{theirs}.{name}")


def _conv(native: str, foreign: str, bias: bool = True) -> Iterator[tuple[str, Entry]]:
    for name in ("weight", "bias") if bias else ("weight",):
        yield f"{native}.{name}", same(f"{foreign}.{name}")


def is_tiny_sequential(keys: Iterable[str]) -> bool:
    """Whether a file's keys look like one half of a tiny autoencoder in the sequential layout."""
    names = list(keys)
    return bool(names) and all(_KEY.fullmatch(key) for key in names) and any(".conv.4." in key for key in names)


def tiny_from_sequential(
    encoder: Mapping[str, Sequence[int]], decoder: Mapping[str, Sequence[int]], where: str = "tiny autoencoder"
) -> dict[str, Any]:
    """Native config from the two files' keys and shapes: blocks, width, latent channels and pooled branches.

    Raises:
        SourceError: keys that are not of this layout.
    """
    encoder_runs, encoder_pool = _runs(encoder, f"{where}, encoder")
    decoder_runs, decoder_pool = _runs(decoder, f"{where}, decoder")
    first, last = _end(encoder, 0, where), _end(encoder, -1, where)
    native = {
        "in_channels": first[1],
        "out_channels": _end(decoder, -1, where)[0],
        "width": first[0],
        "encoder_blocks": encoder_runs,
        "decoder_blocks": decoder_runs,
        "latent_channels": last[0],
        "encoder_pool": encoder_pool,
        "decoder_pool": decoder_pool,
    }
    return checked(TinyConfig, native, where)


def _runs(shapes: Mapping[str, Sequence[int]], where: str) -> tuple[list[int], bool]:
    """Lengths of the runs of blocks between single convolutions, and whether any block is pooled."""
    for key in shapes:
        if not _KEY.fullmatch(key):
            raise SourceError("unrecognised", f"the key {key!r} is none of this layout", where=where)
    singles = {int(k.split(".")[0]) for k in shapes if re.fullmatch(r"\d+\.weight", k)}
    blocks = {int(k.split(".")[0]) for k in shapes} - singles
    if len(singles) < 2 or not blocks:
        raise SourceError("unrecognised", "there are no blocks between convolutions", where=where)
    bounds = sorted(singles)
    runs = [sum(low < b < high for b in blocks) for low, high in pairwise(bounds)]
    return runs, any(".pool." in key for key in shapes)


def _end(shapes: Mapping[str, Sequence[int]], which: int, where: str) -> Sequence[int]:
    singles = sorted((int(k.split(".")[0]), k) for k in shapes if re.fullmatch(r"\d+\.weight", k))
    shape = shapes[singles[which][1]]
    if len(shape) != 4:
        raise SourceError("unrecognised", f"{singles[which][1]!r} is no convolution", where=where)
    return shape


_DIFFUSERS = {
    *("in_channels", "out_channels", "encoder_block_out_channels", "decoder_block_out_channels", "act_fn"),
    *("upsample_fn", "latent_channels", "upsampling_scaling_factor", "num_encoder_blocks", "num_decoder_blocks"),
    *("latent_magnitude", "latent_shift", "force_upcast", "scaling_factor", "shift_factor", "block_out_channels"),
}
_FIXED = {"act_fn": "relu", "upsample_fn": "nearest", "upsampling_scaling_factor": 2}


def tiny_from_diffusers(config: Mapping[str, Any], where: str = "vae/config.json") -> dict[str, Any]:
    """Native config of an AutoencoderTiny's config.json; its latent_magnitude and latent_shift only make thumbnails.

    Raises:
        SourceError: unknown or unsupported entries.
    """
    config = public(config)
    known_only(config, _DIFFUSERS, where)
    for key, fits in _FIXED.items():
        if config.get(key, fits) != fits:
            raise SourceError("unsupported", f"{key} {config[key]!r}", where=f"{where}.{key}", fits=repr(fits))
    sides = ("encoder_block_out_channels", "decoder_block_out_channels")
    widths = {width for side in sides for width in numbers(config.get(side, (64,) * 4), f"{where}.{side}")}
    if len(widths) != 1:
        what = f"{' and '.join(sides)} name widths {sorted(widths)} in one model"
        raise SourceError("unsupported", what, where=where, fits="one width")
    for side, default in (("encoder", (1, 3, 3, 3)), ("decoder", (3, 3, 3, 1))):
        blocks = numbers(config.get(f"num_{side}_blocks", default), f"{where}.num_{side}_blocks")
        stages = len(config.get(f"{side}_block_out_channels", (64,) * 4))
        if len(blocks) != stages:
            what = f"num_{side}_blocks has {len(blocks)} entries, {side}_block_out_channels {stages}"
            raise SourceError("invalid", what, where=where, fits="one a stage in both")
    scale, shift = scaling(config, where, 1.0)
    native = {
        "in_channels": config.get("in_channels", 3),
        "out_channels": config.get("out_channels", 3),
        "width": widths.pop(),
        "encoder_blocks": config.get("num_encoder_blocks", (1, 3, 3, 3)),
        "decoder_blocks": config.get("num_decoder_blocks", (3, 3, 3, 1)),
        "latent_channels": config.get("latent_channels", 4),
        "scale": scale,
        "shift": shift,
        "force_upcast": bool(config.get("force_upcast", False)),
    }
    return checked(TinyConfig, native, where, NATIVE)


def tiny_to_diffusers(config: Mapping[str, Any] | TinyConfig) -> dict[str, Any]:
    """AutoencoderTiny's config.json of a native config.

    Raises:
        SourceError: something that class cannot express.
    """
    c = TinyConfig.of(config)
    if c.encoder_pool or c.decoder_pool:
        raise inexpressible("pooled middle blocks")
    if isinstance(c.scale, tuple) or isinstance(c.shift, tuple):
        raise inexpressible("scale or shift per channel")
    return {
        "_class_name": "AutoencoderTiny",
        "in_channels": c.in_channels,
        "out_channels": c.out_channels,
        "encoder_block_out_channels": [c.width] * len(c.encoder_blocks),
        "decoder_block_out_channels": [c.width] * len(c.decoder_blocks),
        "num_encoder_blocks": list(c.encoder_blocks),
        "num_decoder_blocks": list(c.decoder_blocks),
        "latent_channels": c.latent_channels,
        "scaling_factor": c.scale,
        "shift_factor": c.shift,
        "force_upcast": c.force_upcast,
        **_FIXED,
    }
