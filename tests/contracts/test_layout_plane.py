"""Layouts painted on the latents' grid: numbers by hand, the null, and the plane inside whole pipelines.

Tolerance: 1e-6 absolute for single additions and products in float32.
"""

from __future__ import annotations

from typing import Any

import pytest
import tiny_parts
import torch
from ldmkit_conditioners.layout_plane import LayoutPlane
from ldmkit_denoisers.patched import PatchedDenoiser
from torch import Tensor

import ldmkit
from ldmkit import InputError, Pipeline
from ldmkit.run.loss import predict

BOX = [0.125, 0.25, 0.75, 1.0]
"""On 2 x 4 cells: columns 1/2, 1, 1, 0 covered, rows 1/2 and 1."""
ACROSS = torch.tensor([0.5, 1.0, 1.0, 0.0])
DOWN = torch.tensor([0.5, 1.0])
U = torch.tensor([-1.0, -0.2, 0.6, 1.0])
V = torch.tensor([-1.0, 1 / 3])
NAMES = ("cat", "dog")


def painter(paints: dict[int, tuple[float, float, float]], **config: Any) -> LayoutPlane:
    """One channel, with a, b and c for each class."""
    part = ldmkit.get("conditioner", "layout-plane")({"n_classes": 3, "dim": 1, "names": NAMES, **config})
    assert isinstance(part, LayoutPlane)
    with torch.no_grad():
        part.paints.weight.zero_()
        for number, three in paints.items():
            part.paints.weight[number] = torch.tensor(three)
    return part


def painted(part: LayoutPlane, boxes: list[dict[str, Any]], grid: tuple[int, int] = (2, 4)) -> Tensor:
    with torch.no_grad():
        return part.on_grid([part.parse(boxes, "layout")], grid).value[0, 0]


@pytest.mark.parametrize(
    ("three", "factor"),
    [
        ((1.0, 0.0, 0.0), torch.ones(2, 4)),
        ((0.0, 1.0, 0.0), U.expand(2, 4)),
        ((0.0, 0.0, 1.0), V[:, None].expand(2, 4)),
        ((2.0, -1.0, 3.0), 2 - U + 3 * V[:, None]),
    ],
    ids=["coverage", "across", "down", "all"],
)
def test_a_cell_gets_its_covered_share_of_the_paint(three: tuple[float, float, float], factor: Tensor) -> None:
    found = painted(painter({1: three}), [{"label": "dog", "box": BOX}])
    torch.testing.assert_close(found, DOWN[:, None] * ACROSS * factor, rtol=0, atol=1e-6)


def test_boxes_add_up_each_in_its_own_paint() -> None:
    part = painter({0: (1.0, 0.0, 0.0), 2: (10.0, 0.0, 0.0)})
    found = painted(part, [{"label": 0, "box": BOX}, {"label": 2, "box": [0.5, 0.5, 1.0, 1.0]}])
    want = DOWN[:, None] * ACROSS + torch.tensor([[0.0, 0, 0, 0], [0, 0, 10, 10]])
    torch.testing.assert_close(found, want, rtol=0, atol=1e-6)


def test_a_box_inside_one_cell_counts_by_its_area() -> None:
    found = painted(painter({0: (1.0, 0.0, 0.0)}), [{"label": 0, "box": [0.3, 0.1, 0.4, 0.2]}])
    want = torch.zeros(2, 4)
    want[0, 1] = 0.4 * 0.2  # 0.1 of a column that is 0.25 wide, 0.1 of a row that is 0.5 high
    torch.testing.assert_close(found, want, rtol=0, atol=1e-6)


def test_a_box_that_float32_cannot_tell_from_a_line_paints_nothing() -> None:
    found = painted(painter({0: (1.0, 1.0, 1.0)}), [{"label": 0, "box": [0.125, 0.0, 0.125 + 1e-10, 1.0]}])
    assert bool(found.isfinite().all()) and float(found.abs().max()) < 1e-6


def test_the_empty_layout_and_the_null_are_zeros() -> None:
    part = painter({0: (1.0, 2.0, 3.0)})
    layouts = [part.parse([], "layout"), part.parse([{"label": 0, "box": BOX}], "layout")]
    with torch.no_grad():
        signal = part.on_grid(layouts, (2, 4))
    assert not bool(signal.value[0].any()) and bool(signal.value[1].any())
    assert not bool(part.null(signal).value.any())


def test_without_a_grid_it_says_what_to_call() -> None:
    with pytest.raises(InputError, match="on_grid") as caught:
        painter({})([])
    assert caught.value.code == "input.no-grid"


def both(**defaults: Any) -> Pipeline:
    """One layout, as tokens for cross-attention and as a plane beside the latents."""
    layout = {"n_classes": 3, "names": NAMES, "max_objects": 4}
    return Pipeline.of(
        codec=tiny_parts.kl_codec(),
        denoiser=tiny_parts.unet(2, in_channels=6),
        process=ldmkit.get("process", "discrete")(),
        conditioners={
            "layout": tiny_parts.part("conditioner", "layout-boxes", {**layout, "dim": 8, "frequencies": 2}),
            "painted": tiny_parts.part("conditioner", "layout-plane", {**layout, "dim": 4}, seed=7),
        },
        wiring={"painted": {"input": "layout"}},
        defaults={"size": (16, 16), "steps": 2} | defaults,
    )


def test_two_conditioners_read_one_layout_and_both_count() -> None:
    pipe, boxes = both(), [{"label": "cat", "box": BOX}]
    conditioning = pipe.conditioning([{"layout": boxes}], size=(16, 16))
    assert [part.slot for part in conditioning.parts] == ["context", "plane"] and conditioning.names == ("layout",)
    assert conditioning.parts[1].signal.value.shape == (1, 4, 4, 4)
    kept, dropped = conditioning.view(), conditioning.view({"layout"})
    assert bool(kept["plane"].value.any()) and not bool(dropped["plane"].value.any())


@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
def test_samples_of_any_size_see_the_boxes(size: tuple[int, int]) -> None:
    pipe = both()
    first, moved, none = (
        pipe({"layout": boxes}, size=size, seeds=3).images
        for boxes in ([{"label": 0, "box": BOX}], [{"label": 0, "box": [0.5, 0.0, 1.0, 0.5]}], [])
    )
    assert first.shape[-2:] == size
    assert not torch.allclose(first, moved, atol=1e-4) and not torch.allclose(first, none, atol=1e-4)


def test_gradients_reach_the_paints_of_the_classes_that_are_there() -> None:
    pipe = both()
    part = pipe.conditioners["painted"].requires_grad_(True)
    boxes = [{"label": "dog", "box": BOX}]
    signals = pipe.conditioning([{"layout": boxes}], size=(16, 16), grad=True).view()
    x0, noise = torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 4, 4)
    predict(pipe.denoiser, pipe.process, x0, signals, noise=noise, sigma=[1.0]).square().sum().backward()
    grad = part.paints.weight.grad
    assert bool(grad[1].abs().sum() > 0) and not bool(grad[[0, 2]].any())


def test_bfloat16_paints_what_float32_does() -> None:
    wide = painter({0: (1.0, 0.5, -0.25)}, dim=1)
    narrow = painter({0: (1.0, 0.5, -0.25)}, dim=1).to(torch.bfloat16)
    boxes = [{"label": 0, "box": BOX}, {"label": 0, "box": [0.0, 0.0, 1.0, 1.0]}]
    found, want = painted(narrow, boxes), painted(wide, boxes)
    assert found.dtype == torch.bfloat16
    # 8 bits of mantissa, two values added
    torch.testing.assert_close(found.float(), want, rtol=2**-7, atol=2**-7)


def test_a_patched_denoiser_cuts_the_plane_with_the_picture() -> None:
    pipe = both()
    patched = PatchedDenoiser.wrap(pipe.denoiser, kernel=4, stride=4)
    signals = pipe.conditioning([{"layout": [{"label": 0, "box": BOX}]}], size=(16, 32)).view()
    x, t = torch.linspace(-1, 1, 64).view(1, 2, 4, 8), torch.tensor([9.0])
    with torch.no_grad():
        got = patched(x, t, patched.prepare(signals))
        for left in (0, 4):
            area = (..., slice(left, left + 4))
            cut = signals | {"plane": ldmkit.Plane(signals["plane"].value[area])}
            alone = pipe.denoiser(x[area], t, pipe.denoiser.prepare(cut))
            torch.testing.assert_close(got[area], alone, rtol=1e-5, atol=1e-5)
