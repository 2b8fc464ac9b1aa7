"""Published single files with a group of keys dropped, wrapped or renamed: each is read right, or told what it lacks.

The files are those of `original_models` at full size, keys and shapes without data; nothing of a yaml is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_checkpoints.compvis import checkpoint
from original_files import reduced, state_dict, write
from original_inputs import CLIP_IDS
from original_models import MODELS
from safetensors.torch import save_file
from test_original_family import full_file, small_towers

import ldmkit
from ldmkit.models.compose import compose
from ldmkit.models.source import Source
from ldmkit.models.weights import LazyTensor, check

__all__ = ["small_towers"]

FAMILIES = ["sd1", "sd1-inpaint", "sd2-v", "cldm_v15", "sdxl-base", "sdxl-refiner", "sdxl-inpaint"]
UNET, VAE = "model.diffusion_model.", "first_stage_model."


def published(name: str) -> dict[str, LazyTensor]:
    says_v = {"v_pred": LazyTensor.of(torch.zeros(0))} if name == "sd2-v" else {}
    return full_file(MODELS[name]) | says_v


def text_of(name: str) -> str:
    return "conditioner." if "sdxl" in name else "cond_stage_model."


def opened(tensors: dict[str, LazyTensor], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """As `ldmkit.load` opens a file of these tensors, with every tensor looked at that a part wants."""
    monkeypatch.setattr(checkpoint, "open_checkpoint", lambda path: (tensors, {}))
    source = checkpoint.open_compvis(folder / "file.ckpt", None, None)
    for path, part in compose(source.spec).items().items():
        wire = source.spec.conditioners.get(path.removeprefix("conditioners."))
        if wire is None or wire.shares is None:
            check(part, source.tensors(path), path)
    return source


def without(tensors: dict[str, LazyTensor], *heads: str) -> dict[str, LazyTensor]:
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(heads)}


DROPPED = {"text": "without its text encoder", VAE: "without its first stage", UNET: "without its U-Net"}
DROPPED |= {f"{VAE}encoder.": r"missing.*first_stage_model\.encoder", f"{UNET}out.": r"missing.*'model\..*out\.0"}
DROPPED |= {f"{UNET}input_blocks.4.": r"missing.*input_blocks\.4", f"{VAE}post_quant_conv": "missing.*post_quant_conv"}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("group", DROPPED)
def test_a_group_that_is_missing(name: str, group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = without(published(name), text_of(name) if group == "text" else group)
    if name == "cldm_v15" and group == UNET:  # what is left is a ControlNet that can be had
        tensors = without(tensors, "control_model.")
    with pytest.raises(ldmkit.LdmkitError, match=DROPPED[group]):
        opened(tensors, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_group_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = published(name)
    told = {text_of(name): "a text encoder alone", UNET: "a U-Net alone", VAE: "codec-only.*load_codec"}
    for group, says in told.items():
        with pytest.raises(ldmkit.LdmkitError, match=says):
            opened({key: whole[key] for key in whole if key.startswith(group)}, tmp_path, monkeypatch)
    bare = {key.removeprefix(UNET): whole[key] for key in whole if key.startswith(UNET)}
    with pytest.raises(ldmkit.LdmkitError, match="a U-Net alone"):
        opened(bare, tmp_path, monkeypatch)


@pytest.mark.parametrize("tower", ["0", "1"])
def test_one_of_two_towers_is_missing(tower: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sdxl-base", "sdxl-inpaint"):
        with pytest.raises(ldmkit.LdmkitError, match=rf"without text encoder conditioner\.embedders\.{tower}"):
            opened(without(published(name), f"conditioner.embedders.{tower}."), tmp_path, monkeypatch)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("prefix", ["module.", "model.", "state_dict.", "_orig_mod.", "module._orig_mod.", "net.a."])
def test_wrapped(name: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = published(name)
    source = opened({prefix + key: tensor for key, tensor in tensors.items()}, tmp_path, monkeypatch)
    plain = opened(tensors, tmp_path, monkeypatch)
    assert source.spec == plain.spec
    assert any("is removed" in note for note in source.report.notes)
    seen = source.report.used.keys() | source.report.ignored.keys()
    assert seen == {prefix.replace("_orig_mod.", "") + key for key in tensors}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_compiled_network(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {key.replace(UNET, UNET + "_orig_mod."): tensor for key, tensor in published(name).items()}
    source = opened(tensors, tmp_path, monkeypatch)
    assert any("_orig_mod." in note for note in source.report.notes)


@pytest.mark.parametrize("name", FAMILIES)
def test_keys_that_belong_to_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = published(name)
    with pytest.raises(ldmkit.LdmkitError, match=r"unexpected.*'mystery\.weight'"):
        opened(tensors | {"mystery.weight": LazyTensor.of(torch.zeros(1))}, tmp_path, monkeypatch)
    renamed = {key.replace("input_blocks.4.", "input_blocks.4x."): tensor for key, tensor in tensors.items()}
    with pytest.raises(ldmkit.LdmkitError, match=r"missing.*input_blocks\.4\."):
        opened(renamed, tmp_path, monkeypatch)
    with pytest.raises(ldmkit.LdmkitError):
        opened({key.upper(): tensor for key, tensor in tensors.items()}, tmp_path, monkeypatch)


@pytest.mark.usefixtures("small_towers")
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_dtypes(tmp_path: Path, suffix: str) -> None:
    """Loaded as float32, weights that were rounded draw what they are; 8-bit floats are refused by name.

    Rounding to b bits moves the drawing by about 2**-b: a hundredth of the largest latent is far above that.
    """
    model = reduced(MODELS["sd1"])
    _, config = write(model, tmp_path)
    state = {key: value for key, value in state_dict(model).items() if key.startswith(("model.", "first_", "cond_"))}

    def latents(dtype: torch.dtype, only: str = "") -> Any:
        cast = {
            key: value.to(dtype).clone() if value.is_floating_point() and key.startswith(only) else value.clone()
            for key, value in state.items()
        }
        path = tmp_path / f"file{suffix}"
        if suffix == ".ckpt":
            torch.save({"state_dict": cast}, path)
        else:
            save_file(cast, path)
        pipe = ldmkit.load(path, config=config, dtype="float32")
        return pipe({"text": CLIP_IDS}, size=64, steps=2, seeds=[1]).latents

    want = latents(torch.float32)
    for dtype, only in ((torch.float16, ""), (torch.bfloat16, ""), (torch.float64, ""), (torch.float16, "model.")):
        assert (latents(dtype, only) - want).abs().max() <= 1e-2 * want.abs().max()
    for eight, only in ((torch.float8_e4m3fn, ""), (torch.float8_e5m2, "model."), (torch.int8, "model.")):
        with pytest.raises(ldmkit.LdmkitError, match=r"float8|int8|8-bit floats"):
            latents(eight, only)
