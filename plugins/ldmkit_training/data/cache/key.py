"""What a cache of latents depends on."""

from __future__ import annotations

import hashlib
import json

from ldmkit import Codec, Dataset
from ldmkit_training.data.section import DataSection
from ldmkit_training.loop.digests import bits

FORMAT = 2


def cache_key(dataset: Dataset, section: DataSection, codec: Codec) -> dict[str, str]:
    """Aspect -> digest; the aspects are named in the message that says why a cache is built anew."""
    cache = section.cache
    assert cache is not None
    return {
        "format": str(FORMAT),
        "codec": codec_digest(codec),
        "data": _digest(f"{section.train.model_dump_json()}\n{len(dataset)}\n{dataset.fingerprint}".encode()),
        "size": f"{section.size[0]}x{section.size[1]}",
        "fit": section.fit + (f" {section.crop_scale}" if section.fit == "random-crop" else "") + _enlarged(section),
        "mirror": repr(section.mirror),
        "views": str(cache.views),
        "dtype": cache.dtype,
        "deviation": str(cache.deviation),
        "damaged": section.damaged,
    }


def _enlarged(section: DataSection) -> str:
    return "" if section.buckets is None else f" {section.buckets.small}"


def codec_digest(codec: Codec) -> str:
    """Of a codec's class, config and weights; their device and dtype on the way do not matter, their values do."""
    config = json.dumps(codec.config.model_dump(mode="json"), sort_keys=True)
    digest = hashlib.sha256(f"{type(codec).__module__}:{type(codec).__qualname__}\n{config}\n".encode())
    for name, tensor in sorted(codec.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(bits(tensor))
    return digest.hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
