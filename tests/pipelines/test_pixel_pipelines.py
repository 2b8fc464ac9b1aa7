"""Pixel diffusion with clamped x0 against the oracle's own pipelines: from one folder, and back into one.

Tolerance: 1e-4 of the largest value in float32, as in test_diffusers_pipelines.py; without the clamp the pictures
differ by more than a tenth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_diffusers  # noqa: F401 - silences the oracle's progress bars
import torch
from diffusers.pipelines.ddim import pipeline_ddim
from diffusers.pipelines.ddpm import pipeline_ddpm
from diffusers.schedulers import scheduling_ddpm
from ldmkit_checkpoints.diffusers.export import save_diffusers
from torch import Tensor

import ldmkit
from ldmkit.run.noise import Noise

STEPS = 6
NOISE = Noise([3], (3, 16, 16))


def network(out_channels: int = 3) -> diffusers.UNet2DModel:
    torch.manual_seed(5)
    made = diffusers.UNet2DModel(
        sample_size=16, out_channels=out_channels,
        block_out_channels=(32, 64), layers_per_block=1, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    with torch.no_grad():
        made.conv_out.weight.normal_(std=0.3)
    return made.eval()


def saved(kind: str, folder: Path, **settings: Any) -> Path:
    scheduler = getattr(diffusers, f"{kind}Scheduler")(timestep_spacing="leading", **settings)
    learned = settings.get("variance_type") == "learned_range"
    getattr(diffusers, f"{kind}Pipeline")(network(6 if learned else 3), scheduler).save_pretrained(folder)
    return folder


def oracle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Pictures (1,3,16,16) in [0,1]; its noise is replaced by ours, in the order it is drawn."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    steps = iter(range(STEPS))
    for module in (pipeline_ddim, pipeline_ddpm):
        monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: NOISE(0, "start"))
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, **kwargs: NOISE(next(steps)))
    pictures = pipe(num_inference_steps=STEPS, output_type="np").images
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("DDIM", {}),
        ("DDPM", {}),
        ("DDPM", {"variance_type": "fixed_large", "clip_sample_range": 0.8}),
        ("DDIM", {"clip_sample_range": 0.6}),
        ("DDPM", {"thresholding": True, "sample_max_value": 2.0}),
        ("DDPM", {"variance_type": "learned_range"}),
        ("DDPM", {"variance_type": "learned_range", "prediction_type": "v_prediction", "thresholding": True}),
        ("DDPM", {"variance_type": "fixed_small_log"}),
    ],
)
def test_clamped_pixels(kind: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(kind, tmp_path / "theirs", **settings)
    want = oracle(folder, monkeypatch)
    pipe = ldmkit.load(folder)
    sampler = pipe.spec.defaults.sampler
    assert sampler.type == kind.lower() and sampler.config["limits"]
    assert distance(pipe({}, steps=STEPS, seeds=[3]).images, want) < 1e-4
    plain = {key: value for key, value in sampler.config.items() if key != "limits"}
    free = pipe({}, steps=STEPS, seeds=[3], sampler={"type": sampler.type, "config": plain}).images
    assert distance(free, want) > 0.1
    back = save_diffusers(pipe, tmp_path / "back")
    assert distance(oracle(back, monkeypatch), want) < 1e-4
    assert ldmkit.load(back).spec.defaults == pipe.spec.defaults
