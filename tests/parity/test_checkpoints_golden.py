"""Checkpoints in the original layout, written to disk with every key they have, read with their original yaml.

Tolerance: 1e-5 of an array's largest value, or four times the rounding noise that was measured for it.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ldmkit_checkpoints.compvis.checkpoint import CompVisSource, open_compvis
from ldmkit_checkpoints.compvis.yaml_config import read_yaml
from ldmkit_checkpoints.singlefile.models import infer_config
from safetensors.torch import save_file
from torch import Tensor

import ldmkit
from ldmkit.models.compose import build, compose
from ldmkit.models.weights import LazyTensor, check

GOLDENS = Path(__file__).parents[1] / "goldens"
sys.path.insert(0, str(GOLDENS))
import golden_weights as gw  # noqa: E402

ALL = sorted(path.parent.name for path in GOLDENS.glob("*/config.yaml"))
STAGES = [name for name in ALL if name.startswith("first_stage")]
MODELS = [name for name in ALL if name not in STAGES]
WITH_EMA = [name for name in MODELS if '"unet.eps_ema"' in (GOLDENS / name / "manifest.json").read_text()]


@cache
def golden(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return gw.load_model_dir(str(GOLDENS / name))  # type: ignore[no-any-return]


def tensor(name: str, array: str) -> Tensor:
    value = torch.from_numpy(np.asarray(golden(name)[1][array]))
    return value if value.is_floating_point() else value.long()


def close(name: str, array: str, got: Tensor) -> None:
    manifest, arrays = golden(name)
    ok, error = gw.compare(manifest, arrays, array, got, 1e-5)
    assert ok, f"{name}/{array}: {error:.2e}"


def original_yaml(name: str, folder: Path) -> Path:
    """The yaml of the golden folder; the reduced SDXL states the full first stage, its checkpoint has a reduced one."""
    data = yaml.safe_load((GOLDENS / name / "config.yaml").read_text())
    if name == "sdxl_base":
        data["model"]["params"]["first_stage_config"]["params"]["ddconfig"]["ch"] = 64
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@cache
def state_dict(name: str) -> dict[str, Tensor]:
    """Every key of the reduced checkpoint; shared, nobody may change it."""
    state: dict[str, Tensor] = gw.build_state_dict(*golden(name))
    for key in golden(name)[0].get("published_extra_keys", ()):
        state.setdefault(key, torch.zeros((), dtype=torch.int32) if key.endswith("updates") else torch.zeros(20))
    return state


def written(name: str, folder: Path, suffix: str) -> Path:
    original_yaml(name, folder)
    path = folder / f"model{suffix}"
    if suffix == ".safetensors":
        save_file({key: value.clone() for key, value in state_dict(name).items()}, str(path))
    else:
        extras = {"epoch": 3, "global_step": 7, "pytorch-lightning_version": "1.4.2", "lr_schedulers": []}
        torch.save({"state_dict": state_dict(name), **extras}, path)
    return path


@pytest.mark.parametrize(("name", "suffix"), [*((name, ".ckpt") for name in STAGES), (STAGES[0], ".safetensors")])
def test_a_first_stage_file(tmp_path: Path, name: str, suffix: str) -> None:
    path = written(name, tmp_path, suffix)
    codec = ldmkit.load_codec(path, config=tmp_path / "config.yaml")
    prefix = "fs.mode" if "fs.mode" in golden(name)[1] else "fs.prequant"
    with torch.no_grad():
        close(name, prefix, codec.encode(tensor(name, "fs.image")))
    with pytest.raises(ldmkit.SourceError) as caught:
        ldmkit.load(path)
    assert caught.value.code == "source.codec-only"


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_checkpoint(tmp_path: Path, name: str) -> None:
    """Averaged weights are the default where there are any."""
    path = written(name, tmp_path, ".ckpt")
    pipe = ldmkit.load(path, config=tmp_path / "config.yaml")
    check_codec(name, pipe)
    plain = "unet.eps_nocontrol" if name == "controlnet_v15" else "unet.eps"
    check_network(name, pipe, "unet.eps_ema" if name in WITH_EMA else plain)
    check_conditioner(name, pipe)
    source = open_compvis(path, None, None)
    source.tensors("denoiser")
    check_accounted(source, state_dict(name))
    check_spec(name, source.spec)


def test_raw_weights_and_safetensors(tmp_path: Path) -> None:
    name = "ldm_celeba256"
    path = written(name, tmp_path, ".safetensors")
    pipe = ldmkit.load(path, ema=False)
    check_codec(name, pipe)
    check_network(name, pipe, "unet.eps")
    source = open_compvis(path, None, False)
    source.tensors("denoiser")
    check_accounted(source, state_dict(name))


def check_accounted(source: CompVisSource, keys: Any) -> None:
    """Every key was used or ignored, none both."""
    assert source.report.used.keys() | source.report.ignored.keys() == set(keys)
    assert not source.report.used.keys() & source.report.ignored.keys()


def check_codec(name: str, pipe: ldmkit.Pipeline) -> None:
    noise = tensor(name, "fs.sample_noise") if "fs.sample_noise" in golden(name)[1] else None
    with torch.no_grad():
        close(name, "fs.z", pipe.codec.encode(tensor(name, "fs.image"), noise))
        if "fs.decode_first_stage_in" in golden(name)[1]:
            got = pipe.codec.decode(tensor(name, "fs.decode_first_stage_in"))
            close(name, "fs.decode_first_stage_out", got)


def check_network(name: str, pipe: ldmkit.Pipeline, array: str) -> None:
    signals: dict[str, Any] = {}
    for slot, kind, value in (
        ("context", ldmkit.Tokens, "cond.crossattn"),
        ("context", ldmkit.Tokens, "cond.c"),
        ("plane", ldmkit.Plane, "cond.c"),
        ("vector", ldmkit.Vector, "cond.vector"),
    ):
        if slot in pipe.denoiser.slots and value in golden(name)[1]:
            signals[slot] = kind(tensor(name, value))
    with torch.no_grad():
        x, t = tensor(name, "unet.x"), tensor(name, "unet.t").float()
        got = pipe.denoiser(x, t, pipe.denoiser.prepare(signals))
    close(name, array, got)


def check_conditioner(name: str, pipe: ldmkit.Pipeline) -> None:
    with torch.no_grad():
        if "label" in pipe.conditioners:
            close(name, "cond.c", pipe.conditioners["label"](tensor(name, "cond.classes").tolist()).value)
        if "text" in pipe.conditioners:
            rows = tensor(name, "cond.tokens").tolist()
            close(name, "cond.c", pipe.conditioners["text"](rows).value)


def check_spec(name: str, spec: ldmkit.PipelineSpec) -> None:
    assert spec.defaults.size is not None
    inputs = {
        "ldm_cin256_v2": ["label"],
        "ldm_text2img256": ["text"],
        "ldm_layout2img_openimages256": ["layout"],
        "ldm_semantic_synthesis256": ["semantic"],
        "ldm_bsr_sr": ["image"],
        "controlnet_v15": ["context", "hint"],
        "sd_v1": ["context"],
        "sdxl_base": ["context", "vector"],
    }
    assert list(spec.conditioners) == inputs.get(name, [])
    assert list(spec.adapters) == (["control"] if name == "controlnet_v15" else [])
    if name == "ldm_lsun_churches256":
        assert spec.codec.config["scale"] == float(state_dict(name)["scale_factor"])


def full_tensors(name: str) -> dict[str, LazyTensor]:
    """The published model's keys and shapes without data, save the schedule."""
    manifest, arrays = golden(name)
    lists = ("full_keys", "full_cond_stage_keys", "full_conditioner_keys")
    keys = [pair for part in lists for pair in manifest.get(part, ())]
    found = {key: LazyTensor(tuple(shape), torch.float32, lambda copy: torch.zeros(())) for key, shape in keys}
    buffers = manifest.get("reduced_buffers", {})
    for key, place in buffers.items():
        if "array" in place and key in found:
            found[key] = LazyTensor.of(torch.from_numpy(np.asarray(arrays[place["array"]])).reshape(found[key].shape))
    for key in manifest.get("published_extra_keys", ()):
        found[key] = LazyTensor((), torch.float32, lambda copy: torch.zeros(()))
    if "scale_factor" in found:
        found["scale_factor"] = LazyTensor.of(torch.tensor(0.22))
    return found


@pytest.mark.parametrize("name", [name for name in ALL if (GOLDENS / name / "config_full.yaml").exists()])
def test_the_full_key_list(name: str) -> None:
    config = read_yaml(GOLDENS / name / "config_full.yaml")
    check_full(name, CompVisSource(full_tensors(name), config, name))


@pytest.mark.parametrize("name", [*STAGES, "sd_v1", "sdxl_base"])
def test_the_full_key_list_without_a_yaml(name: str) -> None:
    tensors = full_tensors(name)
    config, notes = infer_config(tensors, {}, name)
    assert notes
    check_full(name, CompVisSource(tensors, config, name))


def check_full(name: str, source: CompVisSource) -> None:
    if name in STAGES:
        with torch.device("meta"):
            check(build("codec", source.codec_spec, "codec"), source.tensors("codec"), name)
    else:
        parts = compose(source.spec)
        for path, part in parts.items().items():
            wiring = source.spec.conditioners.get(path.removeprefix("conditioners."))
            if wiring is None or wiring.shares is None:
                check(part, source.tensors(path), path)
        spec = source.spec
        assert "context" not in spec.conditioners, "the full lists hold the text encoders"
    check_accounted(source, full_tensors(name))


def change(name: str, **changes: Any) -> dict[str, Any]:
    data = read_yaml(GOLDENS / name / "config.yaml")
    data["model"]["params"].update(changes)
    return data


def lazy(name: str, drop: str = "", **more: Tensor) -> dict[str, LazyTensor]:
    state = {key: value for key, value in state_dict(name).items() if key != drop} | more
    return {key: LazyTensor.of(value) for key, value in state.items()}


UNET = "model.diffusion_model.input_blocks.0.0.weight"
SHADOW = "model_ema.diffusion_modelinput_blocks00weight"


@pytest.mark.parametrize(
    ("code", "words", "tensors", "config"),
    [
        ("weights.missing", UNET, {"drop": UNET}, {}),
        ("weights.unexpected", "mystery.weight", {"mystery.weight": torch.zeros(1)}, {}),
        ("weights.unexpected", "model_ema.mystery", {"model_ema.mystery": torch.zeros(1)}, {}),
        ("source.schedule-mismatch", "betas", {}, {"linear_end": 0.02}),
        ("source.schedule-mismatch", "1000", {}, {"timesteps": 500}),
        ("source.unknown-schedule", "linaer", {}, {"beta_schedule": "linaer"}),
        ("source.unknown-prediction", "epsilon", {}, {"parameterization": "epsilon"}),
        ("source.unknown-parameter", "liner_start", {}, {"liner_start": 1}),
        ("source.missing-section", "unet_config", {}, {"unet_config": None}),
        ("source.unsupported", "adm", {}, {"conditioning_key": "adm"}),
    ],
)
def test_what_does_not_fit(code: str, words: str, tensors: dict[str, Any], config: dict[str, Any]) -> None:
    name = "ldm_cin256_v2"
    with pytest.raises(ldmkit.LdmkitError) as caught:
        CompVisSource(lazy(name, **tensors), change(name, **config), name).tensors("denoiser")
    assert caught.value.code == code
    assert words in str(caught.value)


def test_averaged_weights_that_are_incomplete_or_absent() -> None:
    name = "ldm_celeba256"
    with pytest.raises(ldmkit.WeightsError, match=SHADOW) as caught:
        CompVisSource(lazy(name, drop=SHADOW), change(name), name).tensors("denoiser")
    assert caught.value.code == "weights.missing"
    with pytest.raises(ldmkit.SourceError) as refused:
        CompVisSource(lazy("ldm_cin256_v2"), change("ldm_cin256_v2"), name, ema=True)
    assert refused.value.code == "source.no-ema"


def test_a_measured_scale_factor_must_be_there_and_positive() -> None:
    name = "ldm_lsun_churches256"
    with pytest.raises(ldmkit.WeightsError, match="scale_factor"):
        CompVisSource(lazy(name, drop="scale_factor"), change(name), name)
    for value in (0.0, float("nan"), float("inf")):
        with pytest.raises(ldmkit.SourceError) as caught:
            CompVisSource(lazy(name, scale_factor=torch.tensor(value)), change(name), name)
        assert caught.value.code == "source.scale-factor"


def test_the_codec_of_a_whole_checkpoint_alone(tmp_path: Path) -> None:
    written("ldm_celeba256", tmp_path, ".ckpt")
    codec = ldmkit.load_codec(tmp_path)  # the folder: one checkpoint and its config.yaml
    with torch.no_grad():
        close("ldm_celeba256", "fs.z", codec.encode(tensor("ldm_celeba256", "fs.image")))


def test_files_that_need_a_yaml(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": state_dict("ldm_celeba256")}, path)
    with pytest.raises(ldmkit.SourceError) as caught:
        ldmkit.load(path)
    assert caught.value.code == "source.config-needed"
    unet = "model.diffusion_model."
    shapes = {
        f"{unet}input_blocks.0.0.weight": (320, 4, 3, 3),
        f"{unet}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
        "cond_stage_model.model.ln_final.weight": (1024,),
        "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3),
    }
    sd2 = {key: LazyTensor(shape, torch.float32, lambda copy: torch.zeros(())) for key, shape in shapes.items()}
    with pytest.raises(ldmkit.SourceError) as caught:
        infer_config(sd2, {}, "sd2")
    assert caught.value.code == "source.prediction-unknown"
    assert "parameterization" in str(caught.value)
    config, _ = infer_config(sd2, {"global_step": 875_000}, "sd2")
    assert config["model"]["params"]["unet_config"]["params"]["context_dim"] == 1024
