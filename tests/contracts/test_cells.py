"""A denoiser of cells of pixels: by hand, at sides that are no multiple of a cell, and what does not fit."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_parts
import torch
from ldmkit_denoisers.cells import CellsDenoiser
from ldmkit_denoisers.patched import PatchedDenoiser
from torch import Tensor

import ldmkit

CELL = 2
UNET = {"widths": [8, 16], "blocks": 1, "norm_groups": 4, "heads": 2}


def cells(residual: bool = True, **config: Any) -> CellsDenoiser:
    """Of pictures of 3 channels with a plane of 3 channels, random weights."""
    inner = {"type": "unet", "config": {**UNET, "channels": 3 * CELL**2, "in_channels": 6 * CELL**2}}
    torch.manual_seed(0)
    net = CellsDenoiser(CellsDenoiser.Config.of({"inner": inner, "cell": CELL, "residual": residual, **config}, "here"))
    for parameter in net.parameters():  # output convolutions start as zeros
        torch.nn.init.normal_(parameter, std=0.2)
    return net.eval()


def in_cells(x: Tensor) -> Tensor:
    """Channel c * CELL^2 + CELL * row + column of a cell is pixel (row, column) of channel c."""
    n, c, h, w = x.shape
    made = np.empty((n, c * CELL**2, h // CELL, w // CELL), np.float32)
    for row in range(CELL):
        for column in range(CELL):
            made[:, CELL * row + column :: CELL**2] = x.numpy()[:, :, row::CELL, column::CELL]
    return torch.from_numpy(made)


def in_pixels(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    made = np.empty((n, c // CELL**2, h * CELL, w * CELL), np.float32)
    for row in range(CELL):
        for column in range(CELL):
            made[:, :, row::CELL, column::CELL] = x.detach().numpy()[:, CELL * row + column :: CELL**2]
    return torch.from_numpy(made)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def output(net: CellsDenoiser, x: Tensor, plane: Tensor) -> Tensor:
    with torch.no_grad():
        made: Tensor = net(x, torch.tensor([300.0] * len(x)), net.prepare({"plane": ldmkit.Plane(plane)}))
    return made


@pytest.mark.parametrize("residual", [True, False])
def test_by_hand(residual: bool) -> None:
    net, x, plane = cells(residual), noise(2, 3, 8, 12), noise(2, 3, 8, 12, seed=1)
    with torch.no_grad():
        context = net.inner.prepare({"plane": ldmkit.Plane(in_cells(plane))})
        wanted = in_pixels(net.inner(in_cells(x), torch.tensor([300.0, 300.0]), context))
    assert wanted.abs().mean() > 0.1, "the network says something"
    assert torch.equal(output(net, x, plane), wanted + plane if residual else wanted)


def test_other_sides_are_continued_by_their_last_row_and_column() -> None:
    net, x, plane = cells(), noise(1, 3, 7, 9), noise(1, 3, 7, 9, seed=1)
    rows, columns = [*range(7), 6], [*range(9), 8]
    whole = output(net, x[:, :, rows][..., columns], plane[:, :, rows][..., columns])
    assert torch.equal(output(net, x, plane), whole[..., :7, :9])


@pytest.mark.parametrize("kernel", [4, 7], ids=["whole cells", "as many cells as the whole"])
def test_patches_around_cells(kernel: int) -> None:
    """Each patch is the network on what the patch has of picture and plane."""
    net, x, plane = cells(), noise(1, 3, 8, 8), noise(1, 3, 8, 8, seed=1)
    stride = min(kernel, 8 - kernel)
    patched = PatchedDenoiser.wrap(net, kernel=kernel, stride=stride, clip_min=0.5)  # all pixels weigh the same
    with torch.no_grad():
        made = patched(x, torch.tensor([300.0]), patched.prepare({"plane": ldmkit.Plane(plane)}))
    total, count = torch.zeros_like(x), torch.zeros_like(x)
    for top, left in itertools.product(range(0, 9 - kernel, stride), repeat=2):
        window = (..., slice(top, top + kernel), slice(left, left + kernel))
        total[window] += output(net, x[window], plane[window])
        count[window] += 1
    assert torch.allclose(made, total / count, rtol=0, atol=1e-5)  # of sums of at most four numbers of about 1


def test_a_plane_of_another_size_is_named_in_pixels() -> None:
    with pytest.raises(ldmkit.InputError, match=r"the plane is \(8, 6\), the latents are \(8, 8\)"):
        output(cells(), noise(1, 3, 8, 8), noise(1, 3, 8, 6))


def test_work_is_that_of_the_map_of_cells() -> None:
    net = cells()
    assert net.footprint(2, (7, 9)) == net.inner.footprint(2, (4, 5))


def test_in_a_pipeline(tmp_path: Path) -> None:
    """Saved, loaded, and with noise on the picture that it enlarges."""
    pipe = ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=cells(),
        process=ldmkit.get("process", "discrete")(schedule="cosine", prediction="x0"),
        conditioners={"low": ldmkit.get("conditioner", "noised-picture")({})},
        defaults={"steps": 2, "grid": {"type": "trailing"}},
    )
    low = {"low": {"image": noise(3, 4, 6).clamp(-1, 1), "level": 0.1}}
    made = pipe(low, seeds=[1]).images
    assert made.shape == (1, 3, 8, 12)
    assert torch.equal(ldmkit.load(pipe.save(tmp_path / "up"))(low, seeds=[1]).images, made)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"cell": 3}, "cell-channels", "12 channels"),
        ({"inner": {"type": "unet", "config": {**UNET, "channels": 12}}}, "residual", "none"),
        ({"inner": {"type": "unet", "config": {**UNET, "channels": 12, "in_channels": 16}}}, "residual", "1 channels"),
        ({"inner": {"type": "cells", "config": {}}}, "inner", "cells of cells"),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(ldmkit.SpecError, match=words) as error:
        cells(**changes)
    assert error.value.code.endswith(code)


def test_anothers_context() -> None:
    net, other = cells(), tiny_parts.unet(3, None, in_channels=6)
    x = noise(1, 3, 8, 8)
    with pytest.raises(ldmkit.CompositionError, match="prepared by this"):
        net(x, torch.zeros(1), other.prepare({"plane": ldmkit.Plane(x)}))
