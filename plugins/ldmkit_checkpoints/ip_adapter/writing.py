"""IP-Adapters written as they are published."""

from __future__ import annotations

from pathlib import Path

from ldmkit_adapters.ip_adapter.adapter import IPAdapter
from ldmkit_denoisers.unet import UNet

from ldmkit import CompositionError
from ldmkit.models.composed import Composed
from ldmkit.models.weights import write_safetensors
from ldmkit_checkpoints.diffusers.export import published
from ldmkit_checkpoints.ip_adapter.keys import IMAGE, adapter_keys, attention_number, cross_attentions


def write_ip_adapter(path: Path, adapter: IPAdapter, pipeline: Composed) -> None:
    """Write both halves of an IP-Adapter to a safetensors file, for ldmkit, diffusers and others.

    Args:
        pipeline: that it adds to: the file's keys number its U-Net's cross-attentions.

    Raises:
        CompositionError: `not-published`: it adds to something else than a U-Net's cross-attentions.
        RunError: `cannot-write`.
    """
    config, denoiser = adapter.config, pipeline.denoiser
    there = cross_attentions(denoiser.config) if isinstance(denoiser, UNet) else []
    numbers = {attention.port: attention_number(i) for i, attention in enumerate(there)}
    if missing := [layer.port for layer in config.layers if layer.port not in numbers]:
        what = f"{missing[0]!r} is no cross-attention of a U-Net, and has no number in a published file"
        raise CompositionError("not-published", what, fits="a pipeline with a U-Net, and an IP-Adapter for it")
    names = {f"{IMAGE}layers.{i}.0.to_q.weight": () for i in range(config.depth)}
    keys = adapter_keys(config.model_dump(), [numbers[layer.port] for layer in config.layers], names)
    write_safetensors(path, published(adapter.state_dict(), keys))
