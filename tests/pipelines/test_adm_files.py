"""Files of guided-diffusion: how their flags are given, what is read from shapes, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adm_reference import Net, filled, saved, unet_shapes

import ldmkit
from ldmkit import SourceError

NET = Net(width=32, mult=(1, 2), blocks=1, factors=(2,), outputs=6, classes=10, updown=True)
FLAGS = "--image_size 16 --num_heads 4 --noise_schedule cosine"
"""What no shape shows; the rest is read from the file."""


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return filled(unet_shapes(NET), dtype=torch.float32)


def test_what_shapes_show_need_not_be_given(tmp_path: Path, tensors: dict[str, Any]) -> None:
    pipe = ldmkit.load(saved(tmp_path, "model", tensors, FLAGS + " --timestep_respacing 10,15,20"))
    config = pipe.denoiser.config
    assert config.attention == ("none", "self") and config.widths == (32, 64) and config.blocks == 1
    assert config.scale_shift and config.residual_resample and config.out_channels == 6 and config.vector_dim == 10
    assert pipe.spec.codec.type == "identity" and pipe.process.schedule == "cosine"
    defaults = pipe.defaults
    assert defaults.sampler.config == {"variance": "learned", "gradient": "mean", "limits": {"bound": 1.0}}
    assert defaults.grid.type == "respaced" and tuple(defaults.grid.config["sections"]) == (10, 15, 20)
    assert defaults.steps == 45 and defaults.size == (16, 16)
    out = pipe({"label": 7}, seeds=[0], grid=ldmkit.get("grid", "respaced")(), steps=3)
    assert out.images.shape == (1, 3, 16, 16)


def test_flags_as_a_mapping_and_beside_others(tmp_path: Path, tensors: dict[str, Any]) -> None:
    """The same model, from numbers and lists as YAML has them; paths and batch sizes are the scripts' own business."""
    path, beside = saved(tmp_path, "model", tensors, FLAGS), tmp_path / "other.yaml"
    beside.write_text(
        "guided_diffusion:\n  image_size: 16\n  num_heads: 4\n  noise_schedule: cosine\n  attention_resolutions: 8\n"
        "  channel_mult: [1, 2]\n  timestep_respacing: ddim5\n  use_ddim: true\n  batch_size: 4\n  use_fp16: true\n"
    )
    pipe, other = ldmkit.load(path), ldmkit.load(path, config=beside)
    assert pipe.denoiser.config == other.denoiser.config and pipe.process == other.process
    assert other.defaults.sampler.type == "ddim" and other.defaults.grid.config == {"rule": "ddim"}
    assert other.defaults.steps == 5 and pipe.defaults.steps == 1000


def test_half_of_a_file_in_float16(tmp_path: Path, tensors: dict[str, Any]) -> None:
    """The original converts convolutions alone: layers of a network run in one dtype, which widens them."""
    mixed = {key: value.half() if value.ndim > 2 else value for key, value in tensors.items()}
    assert ldmkit.load(saved(tmp_path, "mixed", mixed, FLAGS)).denoiser.dtype == torch.float32
    half = {key: value.half() for key, value in tensors.items()}
    assert ldmkit.load(saved(tmp_path, "half", half, FLAGS)).denoiser.dtype == torch.float16


def test_saved_again(tmp_path: Path, tensors: dict[str, Any]) -> None:
    pipe = ldmkit.load(saved(tmp_path, "model", tensors, FLAGS))
    again = ldmkit.load(pipe.save(tmp_path / "folder"))
    images = [p({"label": 3}, seeds=[1], steps=3).images for p in (pipe, again)]
    assert torch.equal(*images)


def test_a_published_name_has_flags(tmp_path: Path) -> None:
    """By its name, with a word; a file of that name with other shapes is refused by the flag that differs."""
    path = saved(tmp_path, "256x256_diffusion_uncond", filled(unet_shapes(NET._replace(classes=None))))
    with pytest.warns(UserWarning, match="its name is that of a published model"), pytest.raises(SourceError) as caught:
        ldmkit.load(path)
    assert caught.value.code == "source.flag-mismatch" and "num_channels" in str(caught.value)


def test_no_flags(tmp_path: Path, tensors: dict[str, Any]) -> None:
    with pytest.raises(SourceError) as caught:
        ldmkit.load(saved(tmp_path, "model", tensors))
    assert caught.value.code == "source.config-needed"
    for word in ("--noise_schedule", "--num_head_channels", "--use_new_attention_order", "model.yaml",
                 "num_channels 32", "learn_sigma True", "attention at levels 1"):  # fmt: skip
        assert word in str(caught.value)


def test_defaults_nobody_gave_are_said(tmp_path: Path, tensors: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="noise_schedule linear, num_heads 4"):
        ldmkit.load(saved(tmp_path, "model", tensors, "--image_size 16"))


@pytest.mark.parametrize(
    ("more", "code", "word"),
    [
        ("--num_channels 64", "flag-mismatch", "num_channels says 64, the file's shapes say 32"),
        ("--attention_resolutions 16", "flag-mismatch", "attention at 8"),
        ("--learn_sigma False", "flag-mismatch", "learn_sigma"),
        ("--class_cond False", "flag-mismatch", "class_cond"),
        ("--channel_mult 1,2,2", "flag-mismatch", "channel_mult 1,2"),
        ("--large_size 64 --small_size 16", "flag-mismatch", "an upsampler reads 6 channels"),
        ("--num_heads_upsample 2", "unsupported", "num_heads_upsample = 2"),
        ("--rescale_timesteps True --diffusion_steps 4000", "unsupported", "rescale_timesteps"),
        ("--diffusion_steps 4000", "config-needed", "rescale_timesteps False"),
        ("--timestep_respacing ddim5,5", "invalid", "timestep_respacing"),
        ("--timestep_respacing 2.5", "invalid", "timestep_respacing"),
        ("--attention_resolutions eight", "invalid", "attention_resolutions"),
        ("--noise_schedule sqrt", "invalid", "noise_schedule"),
        ("--num_heads 3", "unsupported", "heads"),
        ("--noise_shedule linear", "unknown-parameter", "noise_schedule"),
        ("--learn_sigma maybe", "invalid", "True or False"),
        ("--learn_sigma", "invalid", "no flag with a value"),
        ("--image_size 32", "duplicate-key", "image_size"),
    ],
)
def test_refused(more: str, code: str, word: str, tmp_path: Path, tensors: dict[str, Any]) -> None:
    given = FLAGS if "--noise_schedule" not in more and "--num_heads " not in more else "--image_size 16"
    with pytest.raises(SourceError) as caught:
        ldmkit.load(saved(tmp_path, "model", tensors, f"{given} {more}"))
    assert word in str(caught.value)
    assert caught.value.code == f"source.{code}"


def test_a_key_of_another_model(tmp_path: Path, tensors: dict[str, Any]) -> None:
    path = saved(tmp_path, "model", tensors | {"extra.weight": torch.ones(1)}, FLAGS)
    with pytest.raises(ldmkit.WeightsError, match=r"extra\.weight"):
        ldmkit.load(path)
    path.with_suffix(".yaml").write_text("guided_diffusion: 256x256_difusion\n")
    with pytest.raises(SourceError, match="no published model") as caught:
        ldmkit.load(path)
    assert "256x256_diffusion" in str(caught.value.fits)
