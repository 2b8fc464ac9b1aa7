"""Adapters of another network, names that are taken, and ControlNets whose yaml asks for another algorithm."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import pytest
import tiny_diffusers as tiny
import torch
import yaml
from ldmkit_adapters.controlnet import ControlNet
from ldmkit_checkpoints.compvis.controlnet import controlnet_compvis
from ldmkit_conditioners.image import Hint

import ldmkit
from ldmkit import CompositionError, InputError, SourceError

HINT = {"conditioning_embedding_out_channels": (8, 16)}


def control_of(unet: Any, folder: Path, **fields: Any) -> ldmkit.Adapter:
    diffusers.ControlNetModel.from_unet(unet, **HINT, **fields).save_pretrained(folder)
    return ldmkit.load_adapter(folder)


def hint() -> dict[str, Any]:
    return {"hint": Hint({})}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    base = tmp_path_factory.mktemp("networks")
    sd, xl = tiny.stable_diffusion(), tiny.stable_diffusion_xl()
    return {
        "sd": ldmkit.load(tiny.saved(sd, base / "sd")),
        "xl": ldmkit.load(tiny.saved(xl, base / "xl")),
        "sd control": control_of(sd.unet, base / "c-sd"),
        "xl control": control_of(xl.unet, base / "c-xl"),
    }


@pytest.mark.parametrize(
    ("pipe", "control", "slot"), [("sd", "xl control", "context"), ("xl", "sd control", "context")]
)
def test_of_another_family(folders: dict[str, Any], pipe: str, control: str, slot: str) -> None:
    with pytest.raises(
        CompositionError, match=rf"adapter 'e' \(ControlNet\) reads .* {slot!r}.*denoiser UNet has"
    ) as e:
        folders[pipe].with_adapter("e", folders[control], hint())
    assert e.value.code == "compose.other-network"


@pytest.mark.parametrize("pipe", ["sd", "xl"])
def test_of_its_own(folders: dict[str, Any], pipe: str) -> None:
    assert "e" in folders[pipe].with_adapter("e", folders[f"{pipe} control"], hint()).adapters


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"widths": (16, 16)}, "adds 16 channels at port 'skip.0'; denoiser UNet has"),
        ({"channels": 5, "in_channels": 5, "out_channels": 5}, "reads latents with 5 channels"),
        ({"context_dim": 24}, "reads the tokens of slot 'context', dim 24"),
        (
            {"vector": "mlp", "vector_dim": 4},
            "reads the vector of slot 'vector', dim 4; denoiser UNet has no such slot",
        ),
    ],
)
def test_each_width_by_itself(folders: dict[str, Any], change: dict[str, Any], words: str) -> None:
    own = folders["sd control"].config.model_dump(mode="json")
    own["unet"] = {**own["unet"], **change}
    if "widths" in change:
        own["unet"]["widths"] = [16] * len(own["unet"]["widths"])
    with pytest.raises(CompositionError, match=words):
        folders["sd"].with_adapter("e", ControlNet(own), hint())


def test_a_stranger_says_nothing(folders: dict[str, Any]) -> None:
    """By default nothing is known of an adapter, and it composes as before."""

    class Silent(ldmkit.Adapter):
        slots: ClassVar[Any] = {}

        def taps(self, name: str) -> dict[str, Any]:
            return {"mid": lambda value, frame: value}

    assert Silent().adds("s") == {} and Silent().reads == {} and Silent().channels is None
    folders["sd"].with_adapter("s", Silent(), {})


def test_a_taken_name(folders: dict[str, Any]) -> None:
    control = folders["sd control"]
    one = folders["sd"].with_adapter("e", control, hint())
    for pipe, name in ((one, "e"), (folders["sd"], "text")):
        with pytest.raises(InputError, match=f"{name!r} is already the name of an") as error:
            pipe.with_adapter(name, control, hint())
        assert error.value.code == "input.name-taken"
    two = one.with_adapter("f", control, hint())
    assert list(two.adapters) == ["e", "f"]


STAGE = {
    "in_channels": 4, "hint_channels": 3, "model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1,
    "attention_resolutions": [2], "use_spatial_transformer": True, "context_dim": 32, "num_heads": 4,
}  # fmt: skip


def cldm(folder: Path, target: str = "cldm.cldm.ControlNet", name: str = "control", **params: Any) -> Path:
    """A ControlNet's file with its yaml beside it."""
    from ldmkit_checkpoints.compvis.controlnet import controlnet_from_compvis

    control = ControlNet(controlnet_from_compvis(STAGE, hint_widths=(8, 16)))
    state: dict[str, Any] = {}
    for native, entry in controlnet_compvis(control.config).items():
        tensors = entry.write(control.state_dict()[native])
        state |= dict(zip((f"control_model.{key}" for key in entry.keys), tensors, strict=True))
    torch.save(state, folder / f"{name}.pth")
    whole = {"control_stage_config": {"target": target, "params": STAGE}, "control_key": "hint", **params}
    model = {"model": {"target": "cldm.cldm.ControlLDM", "params": whole}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(model))
    return folder / f"{name}.pth"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"global_average_pooling": "yes"}, "global_average_pooling is 'yes'"),
        ({"only_mid_control": 2}, "only_mid_control is 2"),
        ({"pool_residuals": True}, "unknown parameter 'pool_residuals'"),
        ({"target": "cldm.cldm.ControlNetXS"}, "ControlNetXS"),
    ],
)
def test_another_algorithm(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SourceError, match=words):
        ldmkit.load_adapter(cldm(tmp_path, **fields))


def test_an_ordinary_one(tmp_path: Path) -> None:
    """With all that cldm's own yamls have beside it, at the values of an ordinary ControlNet."""
    own: dict[str, Any] = {
        "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000, "use_ema": False, "image_size": 64,
        "only_mid_control": False, "global_average_pooling": False, "cond_stage_trainable": False,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not ldmkit.load_adapter(cldm(tmp_path, **own)).config.only_mid
        assert ldmkit.load_adapter(cldm(tmp_path, **{**own, "only_mid_control": True})).config.only_mid


def test_shuffle_without_its_yaml(tmp_path: Path) -> None:
    path = cldm(tmp_path, name="control_v11e_sd15_shuffle")
    path.with_suffix(".yaml").unlink()
    with pytest.warns(UserWarning, match="named Shuffle"):
        ldmkit.load_adapter(path)


def test_shuffle(tmp_path: Path) -> None:
    """The yaml of ControlNet 1.1 Shuffle: its residuals are averaged over the map, and drop with the prompt."""
    adapter: Any = ldmkit.load_adapter(cldm(tmp_path, global_average_pooling=True))
    assert adapter.config.pooled and adapter.drops("hint")
