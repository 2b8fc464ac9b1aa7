"""Every part can be asked for without a config: it is built, or says which of its keys is missing."""

from __future__ import annotations

import pytest

import ldmkit
from ldmkit.models.meta import on_meta

KINDS = ("codec", "denoiser", "conditioner", "adapter")


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in ldmkit.components(kind)])
def test_without_a_config(kind: str, name: str) -> None:
    part = ldmkit.get(kind, name)
    missing = [key for key, field in part.Config.model_fields.items() if field.is_required()]
    with on_meta():
        if not missing:
            built = part()
            assert built.config == part.Config()
            return
        with pytest.raises(ldmkit.SpecError) as caught:
            part()
    assert caught.value.code == "spec.missing-key"
    assert (caught.value.where or "").endswith(tuple(f"config.{key}" for key in missing))
