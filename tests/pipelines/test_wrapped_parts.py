"""A pipeline whose codec is tiled and whose network works patch by patch is saved and loaded like any other."""

from __future__ import annotations

from pathlib import Path

import tiny_parts
import torch
from ldmkit_codecs.tiled import TiledCodec
from ldmkit_denoisers.patched import PatchedDenoiser

import ldmkit


def test_saved_and_loaded(tmp_path: Path) -> None:
    codec = TiledCodec.wrap(tiny_parts.kl_codec(), budget_mib=0.02, overlap=8, bytes_per_pixel=32.0)
    pipe = ldmkit.Pipeline.of(
        codec=codec,
        denoiser=PatchedDenoiser.wrap(tiny_parts.unet(2), kernel=4, stride=2),
        process=ldmkit.get("process", "discrete")(),
        conditioners={"label": tiny_parts.label()},
        defaults={"size": (32, 32), "steps": 2},
    )
    assert codec.plan(32, 32).count > 1
    assert pipe.spec.codec.config["inner"]["type"] == "kl" and pipe.spec.denoiser.config["inner"]["type"] == "unet"
    again = ldmkit.load(pipe.save(tmp_path / "wrapped"))
    assert again.spec == pipe.spec
    assert torch.equal(again({"label": 1}).images, pipe({"label": 1}).images)
