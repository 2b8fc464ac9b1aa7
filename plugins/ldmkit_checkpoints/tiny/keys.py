"""Keys and config of a tiny autoencoder.

Both halves are flat `nn.Sequential`s whose keys are positions (`0.weight`, `1.conv.0.weight`, ...). diffusers'
AutoencoderTiny has the same lists in one file under `encoder.layers.` and `decoder.layers.`, the decoder's without its
first, parameterless layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ldmkit_codecs.tiny import TinyConfig

from ldmkit import SourceError
from ldmkit_checkpoints.config_fields import checked
from ldmkit_checkpoints.keys import KeyMap, layer

_CONVS = {"conv1": "conv.0", "conv2": "conv.2", "conv3": "conv.4"}
_POOL = r"pool\.(?:0\.weight|1\.(?:weight|bias)|3\.weight)"
_KEY = re.compile(rf"\d+\.(?:weight|bias|conv\.[024]\.(?:weight|bias)|{_POOL})")


def tiny_sequential_keys(config: TinyConfig) -> KeyMap:
    """Keys of both files, prefixed by the half: `encoder.0.weight` is `0.weight` in the encoder's file."""
    return {**encoder_layers(config, "encoder."), **decoder_layers(config, "decoder.", skipped=0)}


def encoder_layers(config: TinyConfig, prefix: str) -> KeyMap:
    found: KeyMap = {}
    position = 0
    last = len(config.encoder_blocks) - 1
    for level, blocks in enumerate(config.encoder_blocks):
        found.update(layer(f"encoder.entry.{level}", f"{prefix}{position}", bias=level == 0))
        position += 1
        found.update(_blocks(f"encoder.stage.{level}", prefix, position, blocks, config.encoder_pool and level == last))
        position += blocks
    found.update(layer("encoder.conv_out", f"{prefix}{position}"))
    return found


def decoder_layers(config: TinyConfig, prefix: str, skipped: int) -> KeyMap:
    found: KeyMap = {}
    last = len(config.decoder_blocks) - 1
    position = 1 - skipped  # after the tanh on the latent
    found.update(layer("decoder.conv_in", f"{prefix}{position}"))
    position += 2  # skips an activation
    for level, blocks in enumerate(config.decoder_blocks):
        found.update(_blocks(f"decoder.stage.{level}", prefix, position, blocks, config.decoder_pool and level == 0))
        position += blocks
        if level != last:
            position += 1  # nearest-neighbour upsampling
            found.update(layer(f"decoder.doubling.{level}", f"{prefix}{position}", bias=False))
            position += 1
    found.update(layer("decoder.conv_out", f"{prefix}{position}"))
    return found


def _blocks(native: str, prefix: str, position: int, blocks: int, pool: bool) -> KeyMap:
    keymap: KeyMap = {}
    for index in range(blocks):
        ours, theirs = f"{native}.{index}", f"{prefix}{position + index}"
        if pool:
            keymap |= layer(f"{ours}.pool.expand", f"{theirs}.pool.0", bias=False)
            keymap |= layer(f"{ours}.pool.norm", f"{theirs}.pool.1")
            keymap |= layer(f"{ours}.pool.squeeze", f"{theirs}.pool.3", bias=False)
        for conv, name in _CONVS.items():
            keymap |= layer(f"{ours}.{conv}", f"{theirs}.{name}")
    return keymap


def is_tiny_sequential(keys: Iterable[str]) -> bool:
    """Whether keys look like one half of a TAESD."""
    names = list(keys)
    return bool(names) and all(_KEY.fullmatch(key) for key in names) and any(".conv.4." in key for key in names)


def tiny_from_sequential(
    encoder: Mapping[str, Sequence[int]], decoder: Mapping[str, Sequence[int]], where: str = "tiny autoencoder"
) -> dict[str, Any]:
    """The native config by the keys and shapes of both files.

    Raises:
        SourceError: keys of another layout.
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
            raise SourceError("unrecognised", f"the key {key!r} does not belong to this layout", where=where)
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
