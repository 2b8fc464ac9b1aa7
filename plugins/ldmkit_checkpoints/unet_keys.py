"""U-Net blocks whose keys follow the same pattern in the CompVis and diffusers layouts."""

from __future__ import annotations

from typing import Protocol

from ldmkit_denoisers.config import LevelPlan

from ldmkit_checkpoints.keys import KeyMap, as_linear, layer, prefixed, renamed

_BLOCK = {
    "norm_1": "norm1",
    "self_attn.to_out": "attn1.to_out.0",
    "norm_2": "norm2",
    "cross_attn.to_out": "attn2.to_out.0",
    "norm_3": "norm3",
    "ff.proj": "ff.net.0.proj",
    "ff.out": "ff.net.2",
}


class Projecting(Protocol):
    """A config that says how the transformers' projections are stored."""

    @property
    def linear_projections(self) -> bool: ...


def transformer(config: Projecting, plan: LevelPlan, native: str, foreign: str) -> KeyMap:
    keymap = layer(f"{native}.norm", f"{foreign}.norm")
    for name in ("proj_in", "proj_out"):
        weight = f"{foreign}.{name}.weight"
        keymap[f"{native}.{name}.weight"] = renamed(weight) if config.linear_projections else as_linear(weight)
        keymap[f"{native}.{name}.bias"] = renamed(f"{foreign}.{name}.bias")
    for i in range(plan.depth):
        block = transformer_block()
        keymap |= prefixed(block, f"{native}.blocks.{i}.", f"{foreign}.transformer_blocks.{i}.")
    return keymap


def transformer_block() -> KeyMap:
    """One transformer block; both layouts use the same keys."""
    keymap: KeyMap = {}
    for native, foreign in _BLOCK.items():
        keymap |= layer(native, foreign)
    for native, foreign in (("self_attn", "attn1"), ("cross_attn", "attn2")):
        for name in ("to_q", "to_k", "to_v"):
            keymap[f"{native}.{name}.weight"] = renamed(f"{foreign}.{name}.weight")
    return keymap


def residual_block(native: str, foreign: str, inputs: int, outputs: int, names: dict[str, str]) -> KeyMap:
    keymap: KeyMap = {}
    for name, other in names.items():
        if name != "skip" or inputs != outputs:
            keymap |= layer(f"{native}.{name}", f"{foreign}.{other}")
    return keymap


def resampling(plan: LevelPlan, native: str, foreign: str, conv: str, names: dict[str, str]) -> KeyMap:
    if plan.resample == "residual":
        return residual_block(native, foreign, plan.width, plan.width, names)
    return layer(f"{native}.conv", f"{foreign}.{conv}") if plan.resample == "conv" else {}


def two_layers(native: str, inner: str, outer: str) -> KeyMap:
    return layer(f"{native}.inner", inner) | layer(f"{native}.outer", outer)
