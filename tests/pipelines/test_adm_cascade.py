"""A model of guided-diffusion and its upsampler as a cascade; U-Nets exported for diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import torch.nn.functional as F
from adm_reference import Forward, Net, filled, saved, unet_shapes
from ldmkit_checkpoints.diffusers.export_parts import save_diffusers_parts

import ldmkit
from ldmkit import SourceError

BASE = Net(width=32, mult=(1, 2), blocks=1, factors=(2,), outputs=6, classes=10, heads=2, updown=True)
UP = BASE._replace(inputs=6)
BASE_FLAGS = "--image_size 16 --num_heads 2 --noise_schedule cosine --timestep_respacing 5"
UP_FLAGS = "--large_size 32 --small_size 16 --num_heads 2 --noise_schedule linear --timestep_respacing 4"


@pytest.fixture
def cascade(tmp_path: Path) -> ldmkit.Cascade:
    files = (("base", BASE, BASE_FLAGS, 0), ("up", UP, UP_FLAGS, 1))
    stages = {
        name: ldmkit.load(saved(tmp_path, name, filled(unet_shapes(net), seed, torch.float32), flags))
        for name, net, flags, seed in files
    }
    return ldmkit.Cascade.of(stages, {"up": {"inputs": {"low": "base"}}})


def test_both_stages(cascade: ldmkit.Cascade, tmp_path: Path) -> None:
    """The class goes to both; the second stage draws what it draws alone with the first one's picture."""
    out = cascade({"label": 3}, seeds=[7])
    assert out.stages["base"].images.shape[-2:] == (16, 16) and out.images.shape[-2:] == (32, 32)
    small = out.stages["base"].images[0]
    alone = cascade.stages["up"]({"label": 3, "low": small * 2 - 1}, seeds=[ldmkit.stage_seed(7, "up")])
    assert torch.equal(alone.images, out.images)
    other = cascade.stages["up"]({"label": 3, "low": 1 - small * 2}, seeds=[ldmkit.stage_seed(7, "up")])
    assert not torch.allclose(other.images, out.images, atol=1e-2)
    again = ldmkit.Cascade.load(cascade.save(tmp_path / "cascade"))({"label": 3}, seeds=[7])
    assert torch.equal(again.images, out.images)


def test_a_small_picture_of_another_size(cascade: ldmkit.Cascade) -> None:
    """It is enlarged four- or twofold as the flags say, never fitted to a size."""
    up = cascade.stages["up"]
    out = up({"label": 3, "low": torch.zeros(3, 8, 12)}, seeds=[0], steps=1)
    assert out.images.shape[-2:] == (16, 24)
    with pytest.raises(ldmkit.InputError):
        up({"label": 3, "low": torch.zeros(3, 8, 12)}, seeds=[0], steps=1, size=(32, 32))


EXPORTED = Net(width=32, mult=(1, 2), blocks=1, factors=(1, 2), outputs=6, classes=10, head_dim=16, updown=True)
EXPORT_FLAGS = "--image_size 16 --num_head_channels 16 --noise_schedule linear"


@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize("updown", [True, False])
def test_exported(scale_shift: bool, updown: bool, tmp_path: Path) -> None:
    """UNet2DModel computes what the file does: 1e-10 in float64; but in diffusers' middle there is no norm before
    attention where time scales and shifts, unless its config says so."""
    net = EXPORTED._replace(scale_shift=scale_shift, updown=updown)
    tensors = filled(unet_shapes(net))
    pipe = ldmkit.load(saved(tmp_path, "m", tensors, EXPORT_FLAGS))
    folder = save_diffusers_parts(pipe, tmp_path / "parts", ["denoiser"])
    theirs = diffusers.UNet2DModel.from_pretrained(folder / "unet", torch_dtype=torch.float64).eval()
    draws = torch.Generator().manual_seed(0)
    x, t, y = torch.randn(2, 3, 16, 16, generator=draws, dtype=torch.float64), torch.tensor([5.0, 300.0]), [3, 9]
    with torch.no_grad():
        got = theirs(x, t, class_labels=torch.tensor(y)).sample
    assert (got - Forward(net, tensors).unet(x, t, torch.tensor(y))).abs().max() < 1e-10


def test_what_diffusers_cannot_express_is_named(tmp_path: Path) -> None:
    cases: list[tuple[Net, str, str]] = [
        (EXPORTED._replace(head_dim=-1, heads=2), EXPORT_FLAGS.replace("head_channels 16", "heads 2"), "heads"),
        (EXPORTED._replace(width=64, mult=(0.5, 1)), EXPORT_FLAGS + " --channel_mult 0.5,1", "timestep code"),
    ]
    for net, flags, word in cases:
        pipe = ldmkit.load(saved(tmp_path, "m", filled(unet_shapes(net), dtype=torch.float32), flags))
        with pytest.raises(SourceError, match=word) as caught:
            save_diffusers_parts(pipe, tmp_path / "parts", ["denoiser"])
        assert caught.value.code == "source.not-expressible"


def test_bilinear_is_that_of_the_original(cascade: ldmkit.Cascade) -> None:
    low: Any = torch.randint(-128, 129, (3, 16, 16), generator=torch.Generator().manual_seed(0)) / 128
    plane = cascade.stages["up"].conditioners["low"].forward([low]).value
    assert torch.equal(plane, F.interpolate(low[None], (32, 32), mode="bilinear"))
