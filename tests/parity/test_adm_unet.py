"""U-Nets of guided-diffusion, loaded from files and flags, against a reference that shares no code; published sizes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from adm_reference import Forward, Net, filled, saved, unet_shapes
from ldmkit_checkpoints.compvis.guided_flags import PUBLISHED
from ldmkit_denoisers.unet import UNet

import ldmkit
from ldmkit import LazyTensor

TOLERANCE = 1e-10
"""Of outputs of order 1 in float64; 4e-14 was seen. The timestep's code is float32 on both sides."""
SMALL = (
    "--image_size 32 --num_channels 32 --num_res_blocks 1 --channel_mult 1,2 --attention_resolutions 16 --num_heads 4 "
)
NET = Net(width=32, mult=(1, 2), blocks=1, factors=(2,))
CASES: dict[str, tuple[Net, str]] = {
    "legacy": (NET, "--noise_schedule linear"),
    "new-order": (NET._replace(new_order=True), "--noise_schedule linear --use_new_attention_order True"),
    "learned-classes": (
        NET._replace(outputs=6, classes=1000, updown=True),
        "--noise_schedule cosine --learn_sigma True --class_cond True --resblock_updown True",
    ),
    "head-channels": (NET._replace(head_dim=16, blocks=2), "--noise_schedule linear --num_res_blocks=2 "
                      "--num_head_channels 16"),
    "added": (NET._replace(scale_shift=False), "--noise_schedule linear --use_scale_shift_norm False"),
    "half-first": (
        NET._replace(width=64, mult=(0.5, 1, 2), factors=(1, 4), updown=True),
        "--noise_schedule linear --num_channels 64 --channel_mult 0.5,1,2 --attention_resolutions 32,8 "
        "--resblock_updown yes",
    ),
    "upsampler": (NET._replace(inputs=6), "--noise_schedule linear --large_size 32 --small_size 8"),
}  # fmt: skip


def flags(more: str) -> str:
    """The small model's, without those that a case gives again."""
    given = {word.partition("=")[0] for word in more.split() if word.startswith("--")}
    pairs = [f"--{pair.strip()}" for pair in SMALL.split("--")[1:]]
    kept = [pair for pair in pairs if pair.split()[0] not in given]
    return " ".join([*kept, more])


def context(pipe: ldmkit.Pipeline, inputs: list[dict[str, Any]]) -> Any:
    return pipe.prepare(inputs, seeds=list(range(len(inputs)))).evaluate.context((frozenset(),))


@pytest.mark.parametrize("name", CASES)
def test_forward(name: str, tmp_path: Path) -> None:
    net, more = CASES[name]
    tensors = filled(unet_shapes(net))
    pipe = ldmkit.load(saved(tmp_path, name, tensors, flags(more)))
    assert pipe.denoiser.dtype == torch.float64
    draws = torch.Generator().manual_seed(1)
    x, t = torch.randn(2, 3, 32, 32, generator=draws, dtype=torch.float64), torch.tensor([3.0, 907.0])
    given: dict[str, Any] = {"label": 907} if net.classes else {}
    low = torch.randint(-128, 129, (3, 8, 8), generator=draws) / 128  # enlarged exactly in float32
    given |= {"low": low} if net.inputs == 6 else {}
    with torch.no_grad():
        got = pipe.denoiser(x, t, context(pipe, [given, given]))
    y = torch.tensor([907, 907]) if net.classes else None
    want = Forward(net, tensors).unet(x, t, y, low.double().expand(2, -1, -1, -1) if net.inputs == 6 else None)
    assert want.std() > 0.1
    assert (got - want).abs().max() < TOLERANCE


def test_the_orders_differ(tmp_path: Path) -> None:
    """Were the flag without effect, both cases above would pass on one of two equal outputs."""
    tensors, x, t = filled(unet_shapes(NET)), torch.ones(1, 3, 32, 32).double(), torch.tensor([5.0])
    outputs = [Forward(NET._replace(new_order=new), tensors).unet(x, t) for new in (False, True)]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


SIZES = {
    "64x64_diffusion": (Net(192, (1, 2, 3, 4), 3, (2, 4, 8), 3, 6, 1000, -1, 64, updown=True), 296),
    "128x128_diffusion": (Net(256, (1, 1, 2, 3, 4), 2, (4, 8, 16), 3, 6, 1000, 4, updown=True), 422),
    "256x256_diffusion": (Net(256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32), 3, 6, 1000, updown=True), 554),
    "512x512_diffusion": (Net(256, (0.5, 1, 1, 2, 2, 4, 4), 2, (16, 32, 64), 3, 6, 1000, updown=True), 559),
    "lsun_bedroom": (Net(256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32), 3, 6, None, updown=True), 552),
    "64_256_upsampler": (Net(192, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32), 6, 6, 1000, updown=True), 312),
    "128_512_upsampler": (Net(192, (1, 1, 2, 2, 4, 4), 2, (16, 32), 6, 6, 1000, updown=True), 309),
}
"""The network of each published file, and its millions of parameters (Dhariwal & Nichol 2021, tables 11 and 12)."""


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name: str) -> None:
    """The reference's shapes of every published flag line are those of the network that is built from it."""
    from ldmkit_checkpoints.compvis.guided import plan_guided
    from ldmkit_checkpoints.inventory import Inventory

    from ldmkit.models.source import LoadReport

    net, millions = SIZES[name]
    shapes = unet_shapes(net)
    counted = sum(math.prod(shape) for shape in shapes.values())
    assert abs(counted / 1e6 - millions) < 1  # the tables round some and truncate others
    tensors = {key: LazyTensor(shape, torch.float32, lambda copy: torch.empty(0)) for key, shape in shapes.items()}
    inventory = Inventory(tensors, LoadReport(), name)
    plan = plan_guided(PUBLISHED[name], inventory, name)
    assert plan.denoiser is not None
    taken = inventory.take("denoiser", plan.denoiser.keymap)
    inventory.finish()
    with torch.device("meta"):
        unet = UNet(UNet.Config.of(plan.denoiser.spec.config))
    assert {key: tuple(t.shape) for key, t in unet.state_dict().items()} == {k: t.shape for k, t in taken.items()}
