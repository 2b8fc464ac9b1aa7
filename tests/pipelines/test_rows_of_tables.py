"""A number that selects a row of a network's table is one of its rows, or an error: never the nearest one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

import ldmkit
from ldmkit import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-conditional pixel pipeline of diffusers, of whose class its U-Net has a table of 10 rows."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=10,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("classes") / "model"
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(path)
    return path


def test_rows(folder: Path) -> None:
    pipe = ldmkit.load(folder)
    (name,) = pipe.conditioners
    images = [pipe({name: [row]}, seeds=[0], steps=2).images for row in (0, 9, torch.tensor([9]))]
    assert not torch.equal(images[0], images[1]) and torch.equal(images[1], images[2])


@pytest.mark.parametrize("given", [[10], [-1], [3.4], [1e9]])
def test_no_rows(folder: Path, given: Any) -> None:
    pipe = ldmkit.load(folder)
    (name,) = pipe.conditioners
    with pytest.raises(InputError, match="names no row of a table") as caught:
        pipe({name: given}, seeds=[0], steps=2)
    assert caught.value.code == "input.signal-row" and caught.value.fits == "whole numbers from 0 to 9"
    assert name in str(caught.value.where)
