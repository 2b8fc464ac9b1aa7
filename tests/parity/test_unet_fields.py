"""U-Nets and ControlNets of diffusers: a missing field has the installed class's default; unknown ones are refused."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import pytest
from ldmkit_checkpoints import unet_config_diffusers
from ldmkit_checkpoints.controlnet_keys import controlnet_from_diffusers
from ldmkit_checkpoints.unet_config_diffusers import unet_from_diffusers

import ldmkit

TABLES = {"UNet2DModel": unet_config_diffusers._PLAIN, "UNet2DConditionModel": unet_config_diffusers._CROSS}


@pytest.mark.parametrize("name", TABLES)
def test_defaults_are_those_of_the_installed_class(name: str) -> None:
    fields = inspect.signature(getattr(diffusers, name).__init__).parameters
    for key, field in fields.items():
        if key in TABLES[name]:
            assert TABLES[name][key] == field.default, key
        elif key != "self":
            assert field.default in unet_config_diffusers._ONLY[key], key


@pytest.mark.parametrize("name", [*TABLES, "ControlNetModel"])
@pytest.mark.parametrize("key", ["attention_head_dims", "num_attention_head", "norm_num_group"])
def test_a_misspelt_field_is_named(name: str, key: str) -> None:
    read: Any = controlnet_from_diffusers if name == "ControlNetModel" else unet_from_diffusers
    with pytest.raises(ldmkit.SourceError, match=key):
        read({"_class_name": name, key: 8})


@pytest.mark.parametrize("name", ["UNet2DConditionModel", "ControlNetModel"])
def test_a_number_of_heads_of_its_own_is_refused(name: str) -> None:
    read: Any = controlnet_from_diffusers if name == "ControlNetModel" else unet_from_diffusers
    with pytest.raises(ldmkit.SourceError, match="num_attention_heads"):
        read({"_class_name": name, "num_attention_heads": 4})
