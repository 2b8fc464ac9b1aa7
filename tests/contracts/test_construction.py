"""Every part can be asked for without a config: it is built, or says which of its keys is missing."""

from __future__ import annotations

import pytest

import ldmkit
from ldmkit.models.meta import on_meta

KINDS = ("codec", "denoiser", "conditioner", "adapter")
REQUIRED = {"tiled": "inner", "patched": "inner", "unet": "channels", "controlnet": "unet", "lora": "layers"}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in ldmkit.components(kind)])
def test_without_a_config(kind: str, name: str) -> None:
    with on_meta():
        if name not in REQUIRED:
            part = ldmkit.get(kind, name)()
            assert part.config == type(part).Config()
            return
        with pytest.raises(ldmkit.SpecError) as caught:
            ldmkit.get(kind, name)()
    assert caught.value.code == "spec.missing-key"
    assert (caught.value.where or "").endswith(f"config.{REQUIRED[name]}")
