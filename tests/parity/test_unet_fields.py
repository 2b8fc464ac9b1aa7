"""U-Nets of diffusers: a missing field has the installed class's default."""

from __future__ import annotations

import inspect

import diffusers
import pytest
from ldmkit_checkpoints.diffusers import unet_fields

TABLES = {"UNet2DModel": unet_fields.PLAIN, "UNet2DConditionModel": unet_fields.CROSS}


@pytest.mark.parametrize("name", TABLES)
def test_defaults_are_those_of_the_installed_class(name: str) -> None:
    fields = inspect.signature(getattr(diffusers, name).__init__).parameters
    for key, field in fields.items():
        if key in TABLES[name]:
            assert TABLES[name][key] == field.default, key
        elif key != "self":
            assert field.default in unet_fields.ONLY[key], key
