"""What peft's config and diffusers' copy of it say: alpha by every door, the network, and each field by name.

Tolerance: 1e-4 of the largest latent, in float32, as in test_lora_diffusers; what is seen is 1e-6, and a lost alpha
moves the latents by more than 0.02.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import lora_files as made
import peft
import pytest
import tiny_diffusers as tiny
from ldmkit_checkpoints.lora import peft_config
from safetensors.torch import load_file, save_file
from test_lora_diffusers import CALL, NOISE, drawn, far
from torch import Tensor

import ldmkit
from ldmkit.errors import LdmkitError

UNET = {"r": 4, "lora_alpha": 16, "target_modules": ["to_q", "to_v"]}
FORMS = {
    "alpha": UNET,
    "patterns": {**UNET, "rank_pattern": {"to_q": 2}, "alpha_pattern": {"to_v": 3}},
    "rank-stabilised": {**UNET, "lora_alpha": 4, "use_rslora": True},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ldmkit.Pipeline]:
    folder = tiny.saved(tiny.stable_diffusion(), tmp_path_factory.mktemp("base"))
    return folder, ldmkit.load(folder)


def by_peft(model: Any, folder: Path, config: Any) -> Path:
    """A folder that peft wrote."""
    wrapped = peft.get_peft_model(copy.deepcopy(model), config)
    made.randomise(wrapped)
    wrapped.save_pretrained(folder)
    return folder


def edited(folder: Path, **changes: Any) -> Path:
    """The same with other fields; None: without the field."""
    file = folder / peft_config.CONFIG
    fields = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in fields.items() if value is not None}))
    return folder


def theirs(pipe: Any) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    latents: Tensor = pipe(
        "the red house", negative_prompt="a blur", latents=NOISE.clone(), output_type="latent", **CALL
    ).images
    return latents


@pytest.mark.parametrize("name", FORMS)
def test_a_file_of_one_network_alone(base: tuple[Path, ldmkit.Pipeline], tmp_path: Path, name: str) -> None:
    """`save_lora_adapter`: neither its keys nor its metadata begin with a network's name."""
    folder, ours = base
    unet = tiny.stable_diffusion().unet
    unet.add_adapter(peft.LoraConfig(**FORMS[name]))
    made.randomise(unet)
    unet.save_lora_adapter(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.unet.load_lora_adapter(tmp_path, weight_name=file.name, prefix=None)
    want = theirs(pipe)
    for source in (file, tmp_path):
        assert far(drawn(ours.with_lora(source)), want) < 1e-4
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": FORMS[name]["lora_alpha"]})}
    if name == "alpha":  # a network's name in the metadata alone
        save_file(load_file(file), tmp_path / "other.safetensors", metadata)
        assert far(drawn(ours.with_lora(tmp_path / "other.safetensors")), want) < 1e-4


def test_peft_s_file_by_its_name(
    base: tuple[Path, ldmkit.Pipeline], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """adapter_model.safetensors is read with the config beside it; without one a warning says what alpha is."""
    ours = base[1]
    folder = by_peft(tiny.stable_diffusion().unet, tmp_path / "peft", peft.LoraConfig(**UNET))
    file = folder / "adapter_model.safetensors"
    want = drawn(ours.with_lora(folder))
    shutil.copy(file, folder / "second.safetensors")
    recwarn.clear()
    assert far(drawn(ours.with_lora(file)), want) == 0
    assert not [one for one in recwarn if "alpha" in str(one.message)]
    with pytest.warns(match=r"no adapter_config.json beside it, which says alpha"):
        assert far(drawn(ours.with_lora(folder / "second.safetensors")), want) > 0.02


def test_an_alpha_that_is_not_said_is_peft_s(base: tuple[Path, ldmkit.Pipeline], tmp_path: Path) -> None:
    ours = base[1]
    folder = by_peft(tiny.stable_diffusion().unet, tmp_path, peft.LoraConfig(**{**UNET, "lora_alpha": 8}))
    want = drawn(ours.with_lora(folder))
    assert far(drawn(ours.with_lora(edited(folder, lora_alpha=None))), want) == 0
    assert far(drawn(ours.with_lora(edited(folder, lora_alpha=4))), want) > 0.01


def test_the_network_that_was_wrapped(base: tuple[Path, ldmkit.Pipeline], tmp_path: Path) -> None:
    """A ControlNet's layers have the U-Net's names; the second text encoder's have the first's."""
    theirs_sd = tiny.stable_diffusion()
    control = diffusers.ControlNetModel.from_unet(theirs_sd.unet, conditioning_embedding_out_channels=(8, 16))
    folder = by_peft(control, tmp_path / "control", peft.LoraConfig(**UNET))
    with pytest.raises(LdmkitError, match=r"other-base.*trained on a ControlNetModel"):
        base[1].with_lora(folder)
    xl = tiny.stable_diffusion_xl()
    ours = ldmkit.load(tiny.saved(xl, tmp_path / "xl"))
    for name in ("text_encoder", "text_encoder_2"):
        config = peft.LoraConfig(r=2, lora_alpha=9, target_modules=["q_proj", "fc1"])
        folder = by_peft(getattr(xl, name), tmp_path / name, config)
        pipe = tiny.stable_diffusion_xl()
        setattr(pipe, name, peft.PeftModel.from_pretrained(getattr(pipe, name), str(folder)).merge_and_unload())
        assert far(drawn(ours.with_lora(folder)), theirs(pipe)) < 1e-4
        assert far(drawn(ours), theirs(pipe)) > 1e-3


@pytest.mark.parametrize("config", [peft.LoraConfig, peft.LoHaConfig, peft.LoKrConfig])
def test_every_field_that_peft_has_is_known(config: Any) -> None:
    known = {*peft_config._USED, *peft_config._CHECKED, *peft_config._CHANGING, *peft_config._OF_TRAINING}
    assert {field.name for field in dataclasses.fields(config)} <= known


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_something_new": True}, "unknown-key.*'use_something_new'"),
        ({"velora_config": {"rank": 2}}, "unsupported.*velora_config"),
        ({"monteclora_config": {"x": 2}}, "unsupported.*monteclora_config"),
        ({"kasa_config": {"x": 2}}, "unsupported.*kasa_config"),
        ({"enable_lora": [True, False]}, "unsupported.*enable_lora"),
    ],
)
def test_fields(base: tuple[Path, ldmkit.Pipeline], tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    folder = edited(by_peft(tiny.stable_diffusion().unet, tmp_path, peft.LoraConfig(**UNET)), **changes)
    with pytest.raises(LdmkitError, match=words):
        base[1].with_lora(folder)


def test_metadata_of_several_networks(base: tuple[Path, ldmkit.Pipeline], tmp_path: Path) -> None:
    """Fields of a network that is none of ours are no fields of all."""
    file = made.by_diffusers(tiny.stable_diffusion(), tmp_path, UNET)
    for fields, words in (
        ({"unet.r": 4, "transformer.lora_alpha": 2}, "metadata.*'transformer.lora_alpha'"),
        ({"transformer.lora_alpha": 2}, "unknown-key.*'transformer.lora_alpha'"),
    ):
        save_file(load_file(file), tmp_path / "x.safetensors", {"lora_adapter_metadata": json.dumps(fields)})
        with pytest.raises(LdmkitError, match=words):
            base[1].with_lora(tmp_path / "x.safetensors")
