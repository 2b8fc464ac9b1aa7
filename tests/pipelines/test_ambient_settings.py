"""What a seed draws does not depend on settings of the process: default dtype and device, autocast, global seeds.

Tolerance: 1e-5 of a picture's range, float32 on both sides: the same numbers are added up in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ldmkit
from ldmkit import Draws
from ldmkit.errors import DrawingWarning
from ldmkit.loading import pipeline_of
from ldmkit.models.reading import open_source
from ldmkit.run.noise import Noise

LAYOUT = [{"label": "red house", "box": [0.1, 0.5, 0.45, 0.87]}]
PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
MASK = np.eye(64, dtype=bool)


@pytest.fixture(params=["float64", "float16", "bfloat16"])
def other_dtype(request: pytest.FixtureRequest) -> Iterator[None]:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, request.param))
    yield
    torch.set_default_dtype(usual)


@pytest.fixture
def other_device() -> Iterator[None]:
    """`meta` stands for a GPU: a tensor that lands on it by default cannot be read."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def drawn(**options: Any) -> Tensor:
    pipe = ldmkit.load("miniworld")
    inputs = options.pop("inputs", {"label": "lake"})
    return pipe(inputs, steps=3, seeds=[3, 4], **options).images


CALLS: dict[str, Callable[[], Tensor]] = {
    "class": drawn,
    "boxes": lambda: drawn(inputs={"layout": LAYOUT}, guidance=2.0, sampler="euler-ancestral"),
    "text": lambda: drawn(inputs={"text": "a tree by a lake"}, sampler="dpmpp-2m-sde"),
    "inpainting": lambda: drawn(start=ldmkit.Start(image=PICTURE, strength=0.7, mask=MASK)),
    "latents": lambda: ldmkit.load("miniworld").encode(PICTURE),
}
WANT = {name: call() for name, call in CALLS.items()}


@pytest.mark.parametrize("name", CALLS)
def test_the_default_dtype(other_dtype: None, name: str) -> None:
    got = CALLS[name]()
    assert got.dtype == torch.float32 and float((got - WANT[name]).abs().max()) < 1e-5


@pytest.mark.parametrize("name", CALLS)
def test_the_default_device(other_device: None, name: str) -> None:
    got = CALLS[name]()
    assert got.device.type == "cpu" and float((got - WANT[name]).abs().max()) < 1e-5


def test_noise_and_the_draws_of_training() -> None:
    want = Noise([3], (4, 8))(2), Draws(1, 2, (0, 1)).normal("noise", (4,)), Draws(1, 2, (0, 1)).uniform("time")
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        got = Noise([3], (4, 8))(2), Draws(1, 2, (0, 1)).normal("noise", (4,)), Draws(1, 2, (0, 1)).uniform("time")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(got, want, strict=True))


def test_autocast_is_said() -> None:
    pipe = ldmkit.load("miniworld")
    with torch.autocast("cpu", torch.bfloat16), pytest.warns(DrawingWarning, match="autocast is on, .* in bfloat16"):
        pipe.prepare({"label": "lake"})


def test_a_mask_with_traces_of_compression() -> None:
    pipe = ldmkit.load("miniworld")
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    noise = np.random.default_rng(0).integers(-6, 7, mask.shape)
    rough = np.clip(mask + noise, 0, 255).astype(np.uint8)
    with pytest.warns(DrawingWarning, match="close to black or white, perhaps from JPEG"):
        pipe.prepare({"label": "lake"}, start=ldmkit.Start(image=PICTURE, mask=rough))


def test_a_source_that_is_open_already_is_filled_on_the_cpu(other_device: None) -> None:
    """As `ldmkit convert` and the exports fill it; what stayed on the default device would have no numbers."""
    pipe = pipeline_of(open_source("miniworld"))
    assert {tensor.device.type for part in pipe.parts.items().values() for tensor in part.buffers()} <= {"cpu"}
    assert pipe({"label": "lake"}, steps=1).images.isfinite().all()
