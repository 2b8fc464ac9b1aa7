"""What a checkpoint says of itself beside its weights is used, and compared: with itself, with its shapes, with a yaml.

Keys and words are those that sd-scripts (`modelspec.`, `ss_`), ComfyUI (`modelspec.predict_key`, `v_pred`, `ztsnr`),
OneTrainer and A1111 (`sd_merge_recipe`) write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from ldmkit_checkpoints.compvis.checkpoint import CompVisSource
from ldmkit_checkpoints.singlefile.evidence import gather
from ldmkit_checkpoints.singlefile.models import infer_config
from original_files import reduced, state_dict, write
from original_layout import schedule
from original_models import MODELS
from safetensors.torch import save_file
from test_original_family import full_file, small_towers

import ldmkit
from ldmkit.models.weights import LazyTensor

__all__ = ["small_towers"]

SPEC = "modelspec."
MERGED = {"format": "pt", "sd_merge_recipe": '{"interp_method": "Weighted sum"}', "sd_merge_models": "{}"}
SAYS_V: list[tuple[dict[str, str], tuple[str, ...]]] = [
    ({SPEC + "prediction_type": "v"}, ()),
    ({SPEC + "prediction_type": "v_prediction"}, ()),
    ({SPEC + "predict_key": "v"}, ("v_pred",)),
    ({"ss_v_parameterization": "True"}, ()),
    ({}, ("v_pred",)),
]
SAYS_EPS = [
    {SPEC + "prediction_type": "epsilon"},
    {SPEC + "predict_key": "epsilon"},
    {"ss_v_parameterization": "False"},
]


def file_of(name: str, *markers: str) -> dict[str, LazyTensor]:
    """A published file without its data, and empty tensors beside it."""
    return full_file(MODELS[name]) | {key: LazyTensor.of(torch.zeros(0)) for key in markers}


def read(name: str, metadata: dict[str, str], *markers: str, extras: dict[str, Any] | None = None) -> CompVisSource:
    """A full-size file without a yaml."""
    tensors = file_of(name, *markers)
    config, _ = infer_config(tensors, extras or {}, "file", metadata)
    return CompVisSource(tensors, config, "file", metadata=metadata)


def process(source: CompVisSource) -> dict[str, Any]:
    return source.spec.process.config


@pytest.mark.parametrize(("metadata", "markers"), SAYS_V)
@pytest.mark.parametrize("name", ["sd1", "sd2-v", "sdxl-base", "sdxl-refiner", "sdxl-inpaint"])
def test_v_however_it_is_said(name: str, metadata: dict[str, str], markers: tuple[str, ...]) -> None:
    source = read(name, {**metadata, **MERGED}, *markers)
    assert process(source)["prediction"] == "v" and not process(source).get("zero_terminal_snr")
    source.tensors("denoiser")
    assert all(source.report.ignored[key] == "marker of the prediction type" for key in markers)


@pytest.mark.parametrize("metadata", SAYS_EPS)
@pytest.mark.parametrize("name", ["sd1", "sd2-base", "sdxl-base"])
def test_eps_however_it_is_said(name: str, metadata: dict[str, str]) -> None:
    assert process(read(name, metadata)).get("prediction", "eps") == "eps"


@pytest.mark.parametrize(
    ("name", "metadata", "prediction"),
    [
        ("sd2-v", {SPEC + "architecture": "stable-diffusion-v2-768-v"}, "v"),
        ("sd2-base", {SPEC + "architecture": "stable-diffusion-v2-512"}, "eps"),
        ("sd2-v", {"ss_base_model_version": "sd_v2_v", "ss_v2": "True"}, "v"),
        ("sd1", {SPEC + "architecture": "stable-diffusion-v1", "ss_v2": "False"}, "eps"),
        ("sdxl-base", {SPEC + "architecture": "stable-diffusion-xl-v1-base"}, "eps"),
        ("sdxl-refiner", {SPEC + "architecture": "stable-diffusion-xl-v1-refiner"}, "eps"),
        ("sdxl-base", {SPEC + "architecture": "Somebody's own name"}, "eps"),
        ("sdxl-base", {SPEC + "prediction_type": "", "ss_v2": "None"}, "eps"),
    ],
)
def test_the_architecture_is_evidence_too(name: str, metadata: dict[str, str], prediction: str) -> None:
    assert process(read(name, metadata)).get("prediction", "eps") == prediction


BETAS = schedule(0.00085, 0.012)["betas"].double()


@pytest.mark.parametrize("name", ["sd1", "sd2-v", "sdxl-base"])
@pytest.mark.parametrize(
    ("metadata", "markers"),
    [({}, ("v_pred", "ztsnr")), ({"ss_zero_terminal_snr": "True", SPEC + "prediction_type": "v"}, ())],
)
def test_zero_terminal_snr_rescales_the_schedule(name: str, metadata: dict[str, str], markers: tuple[str, ...]) -> None:
    """The last value apart, which every program puts a little above zero (ours 2**-24, ComfyUI's 4.9e-8)."""
    source = read(name, metadata, *markers)
    pipe_process: Any = ldmkit.get("process", "discrete").of(process(source))
    want = (1 - rescale_zero_terminal_snr(BETAS)).cumprod(0)
    got = torch.tensor(pipe_process.table.alpha_bars, dtype=torch.float64)
    assert torch.allclose(got[:-1], want[:-1], rtol=1e-5, atol=0)
    assert 0 < got[-1] < 1e-7
    source.tensors("denoiser")  # buffers of the schedule as it was before are what such files hold


CONTRADICTIONS = [
    ("sdxl-base", {SPEC + "prediction_type": "epsilon"}, ("v_pred",), r"v_pred.*predicts v.*prediction_type.*eps"),
    ("sd1", {SPEC + "predict_key": "epsilon"}, ("v_pred",), r"v_pred.*predicts v.*predict_key.*eps"),
    ("sd1", {SPEC + "prediction_type": "v", "ss_v_parameterization": "False"}, (), r"predicts v.*parameteriz.*eps"),
    ("sd2-v", {SPEC + "architecture": "stable-diffusion-v2-512"}, ("v_pred",), r"v_pred.*architecture.*eps"),
    ("sd2-v", {"ss_base_model_version": "sd_v2", SPEC + "prediction_type": "v"}, (), r"v.*ss_base_model.*eps"),
    ("sdxl-base", {SPEC + "prediction_type": "flow"}, (), r"modelspec\.prediction_type is 'flow'.*epsilon or v"),
    ("sdxl-base", {"ss_zero_terminal_snr": "False"}, ("v_pred", "ztsnr"), r"ztsnr.*with zero.*ss_zero.*without zero"),
    ("sdxl-base", {"ss_zero_terminal_snr": "perhaps"}, (), r"ss_zero_terminal_snr is 'perhaps'.*True or False"),
    ("sdxl-base", {}, ("ztsnr",), r"ztsnr.*zero terminal SNR.*eps prediction undefined.*config.*predicts eps"),
    ("sd1", {"ss_zero_terminal_snr": "True"}, (), r"ss_zero_terminal_snr.*eps prediction undefined"),
    ("sd1", {SPEC + "architecture": "stable-diffusion-xl-v1-base"}, (), r"architecture.*is SDXL.*shape.*Diffusion 1"),
    ("sdxl-base", {SPEC + "architecture": "stable-diffusion-v1"}, (), r"architecture.*Diffusion 1.*shape.*SDXL"),
    ("sdxl-base", {SPEC + "architecture": "stable-diffusion-xl-v1-refiner"}, (), r"refiner.*shape.*SDXL"),
    ("sdxl-base", {SPEC + "architecture": "flux-1-dev"}, (), r"flux-1-dev.*shape.*SDXL"),
    ("sd1", {"ss_v2": "True"}, (), r"ss_v2.*a model of Stable Diffusion 2.*shape.*no model"),
    ("sd2-v", {"ss_v2": "False"}, ("v_pred",), r"ss_v2.*no model of Stable Diffusion 2.*shape.*a model"),
    ("sd1", {"ss_base_model_version": "sdxl_base_v1-0"}, (), r"ss_base_model_version.*SDXL.*shape"),
    ("sd1", {"ss_v2": "True", SPEC + "architecture": "stable-diffusion-v1"}, (), r"ss_v2.*architecture.*no model"),
]


@pytest.mark.parametrize(("name", "metadata", "markers", "says"), CONTRADICTIONS)
def test_evidence_that_disagrees_shows_both(
    name: str, metadata: dict[str, str], markers: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ldmkit.SourceError, match=says):
        read(name, metadata, *markers)


def test_the_counted_steps_of_the_base_model_are_evidence() -> None:
    with pytest.raises(ldmkit.SourceError, match=r"prediction_type.* v.*global_step 875000.*eps"):
        read("sd2-base", {SPEC + "prediction_type": "v"}, extras={"global_step": 875_000})
    assert process(read("sd2-base", {}, extras={"global_step": 875_000})).get("prediction", "eps") == "eps"


@pytest.mark.usefixtures("small_towers")
@pytest.mark.parametrize("name", ["sd1", "sd2-base", "sdxl-base"])
def test_a_yaml_that_disagrees(tmp_path: Path, name: str) -> None:
    """The yaml says eps; the file, by metadata or by a marker key, v; .ckpt and .safetensors."""
    _, config = write(reduced(MODELS[name]), tmp_path)
    state = {key: value.clone() for key, value in state_dict(reduced(MODELS[name])).items()}
    save_file(state, tmp_path / "said.safetensors", {SPEC + "prediction_type": "v"})
    marked = {**state, "v_pred": torch.zeros(0)}
    save_file(marked, tmp_path / "marked.safetensors")
    torch.save({"state_dict": marked}, tmp_path / "marked.ckpt")
    for file in ("said.safetensors", "marked.safetensors", "marked.ckpt"):
        with pytest.raises(ldmkit.SourceError, match=r"prediction-unknown.*predicts v.*project.yaml.*predicts eps"):
            ldmkit.load(tmp_path / file, config=config)
    save_file(state, tmp_path / "same.safetensors", {SPEC + "prediction_type": "epsilon", **MERGED})
    assert ldmkit.load(tmp_path / "same.safetensors", config=config).process.prediction == "eps"  # type: ignore[attr-defined]


def test_the_size_that_it_was_trained_for() -> None:
    for said, size in (("768x512", (512, 768)), ("1536x1536", (1536, 1536))):
        source = read("sdxl-base", {SPEC + "resolution": said})
        assert source.spec.defaults.size == size
        assert any("pixels by default" in note for note in source.report.notes)
    assert read("sdxl-base", {}).spec.defaults.size == (1024, 1024)
    assert read("sd2-v", {SPEC + "architecture": "stable-diffusion-v2-768-v"}).spec.defaults.size == (768, 768)
    with pytest.warns(UserWarning, match="resolution"):
        assert read("sdxl-base", {SPEC + "resolution": "17x9"}).spec.defaults.size == (1024, 1024)


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({SPEC + "encoder_layer": "2"}, "clip skip"),
        ({"ss_clip_skip": "2"}, "clip skip"),
        ({SPEC + "timestep_range": "0,200"}, "these timesteps only"),
    ],
)
def test_what_only_the_user_can_act_upon_is_said(metadata: dict[str, str], says: str) -> None:
    with pytest.warns(UserWarning, match=says):
        source = read("sd1", metadata)
    assert any(says in note for note in source.report.notes)
    assert gather({SPEC + "encoder_layer": "1", SPEC + "timestep_range": "0,999"}, (), "file").notes == ()
