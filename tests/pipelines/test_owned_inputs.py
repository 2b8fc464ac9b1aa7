"""What a caller hands in is copied: a buffer that is filled again changes no call made before, and no recipe of it."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny_parts
import torch
from PIL import Image

import ldmkit
from ldmkit.run.owning import owned_rows


class Buffer(NamedTuple):
    """Something of a caller's that is filled with number after number."""

    make: Callable[[], Any]
    fill: Callable[[Any, int], Any]
    wrap: Callable[[Any], Mapping[str, Any]]
    scene: bool = False


def started(**fields: Any) -> Mapping[str, Any]:
    return {"inputs": {"label": 1}, "start": {"strength": 0.9, **fields}}


def on_grey(mask: Any) -> Mapping[str, Any]:
    return started(image=np.full((8, 8, 3), 99, np.uint8), mask=mask)


def semantic(labels: Any) -> Mapping[str, Any]:
    return {"inputs": {"semantic": labels, "label": 1}}


def moved(boxes: Any, number: int) -> None:
    boxes[0]["box"][:] = [0.1 * number, 0.1, 0.1 * number + 0.3, 0.6]


def rows(mask: Any, number: int) -> None:
    mask[: 2 * number + 2] = mask.max() if mask.any() else 1


def shift(tensor: torch.Tensor, number: int) -> None:
    tensor.fill_(number * 0.2 - 0.3)


def levels(array: Any, number: int) -> None:
    array.fill(60 * number)


def shares(array: Any, number: int) -> None:
    array.fill(number / 4)


BUFFERS = {
    "start of a tensor": Buffer(lambda: torch.zeros(3, 8, 8), shift, lambda t: started(image=t)),
    "a Start of a tensor": Buffer(
        lambda: torch.zeros(3, 8, 8), shift,
        lambda t: {"inputs": {"label": 1}, "start": ldmkit.Start(t, 0.9)},
    ),
    "start of a batch": Buffer(lambda: torch.zeros(1, 3, 8, 8), shift, lambda t: started(image=t)),
    "start of an array": Buffer(lambda: np.zeros((8, 8, 3), np.uint8), levels, lambda a: started(image=a)),
    "start of floats": Buffer(lambda: np.zeros((8, 8, 3), np.float32), shares, lambda a: started(image=a)),
    "start of PIL": Buffer(
        lambda: Image.new("RGB", (8, 8)), lambda p, i: p.paste((i * 60,) * 3, (0, 0, 8, 8)), lambda p: started(image=p)
    ),
    "latents": Buffer(lambda: torch.zeros(3, 8, 8), lambda t, i: t.fill_(i * 0.2), lambda t: started(latents=t)),
    "latents of an array": Buffer(lambda: np.zeros((3, 8, 8), np.float32), shares, lambda a: started(latents=a)),
    "mask of a tensor": Buffer(lambda: torch.zeros(8, 8), rows, on_grey),
    "mask of bools": Buffer(lambda: torch.zeros(8, 8, dtype=torch.bool), rows, on_grey),
    "mask of an array": Buffer(lambda: np.zeros((8, 8), np.float32), rows, on_grey),
    "map of a tensor": Buffer(lambda: torch.zeros(8, 8, dtype=torch.int64), lambda t, i: t.fill_(i), semantic, True),
    "map of an array": Buffer(lambda: np.zeros((8, 8), np.int64), lambda a, i: a.fill(i), semantic, True),
    "map of PIL": Buffer(lambda: Image.new("L", (8, 8)), lambda p, i: p.paste(i, (0, 0, 8, 8)), semantic, True),
    "boxes": Buffer(
        lambda: [{"label": "cat", "box": [0.0, 0.0, 1.0, 1.0]}], moved,
        lambda v: {"inputs": {"layout": v, "label": 1}}, True,
    ),
    "guidance": Buffer(
        lambda: {"label": 1.0}, lambda v, i: v.update(label=1.0 + i), lambda v: {"inputs": {"label": 1}, "guidance": v}
    ),
    "negative": Buffer(
        lambda: {"label": 0}, lambda v, i: v.update(label=i),
        lambda v: {"inputs": {"label": 1}, "negative": v, "guidance": 3.0},
    ),
}  # fmt: skip


@pytest.fixture(params=BUFFERS)
def buffer(request: pytest.FixtureRequest) -> Buffer:
    return BUFFERS[request.param]


@pytest.fixture(scope="module")
def pipes() -> dict[bool, ldmkit.Pipeline]:
    return {False: tiny_parts.class_pipeline(), True: tiny_parts.scene_pipeline()}


def call(buffer: Buffer, number: int, held: Any = None) -> dict[str, Any]:
    value = buffer.make() if held is None else held
    buffer.fill(value, number)
    return {**buffer.wrap(value), "steps": 3}


def test_a_call_and_its_recipe(buffer: Buffer, pipes: dict[bool, ldmkit.Pipeline]) -> None:
    """The recipe is written after the buffer was filled again, and is that of a call whose buffer never was."""
    pipe, held = pipes[buffer.scene], buffer.make()
    out = pipe(**call(buffer, 1, held))
    buffer.fill(held, 2)
    wanted, other = pipe(**call(buffer, 1)), pipe(**call(buffer, 2))
    assert out.recipes == wanted.recipes != other.recipes
    assert torch.equal(ldmkit.replay(pipe, out.recipes[0]).images, wanted.images)


def test_what_is_prepared(buffer: Buffer, pipes: dict[bool, ldmkit.Pipeline]) -> None:
    pipe, held = pipes[buffer.scene], buffer.make()
    prepared, stream = pipe.prepare(**call(buffer, 1, held)), pipe.stream(**call(buffer, 1, held))
    buffer.fill(held, 3)
    wanted = pipe(**call(buffer, 1))
    out = pipe.run(prepared)
    assert torch.equal(out.images, wanted.images) and out.recipes == wanted.recipes
    *_, last = stream
    assert torch.equal(pipe.process.settled(last.x, last.sigma_next), wanted.latents)
    assert not torch.equal(pipe(**call(buffer, 3)).images, wanted.images)  # it is a buffer that matters


def test_many(buffer: Buffer, pipes: dict[bool, ldmkit.Pipeline]) -> None:
    """A generator that fills one buffer again: four batches are read before the first is drawn."""
    pipe, held = pipes[buffer.scene], buffer.make()
    requests: Iterator[Any] = ({**call(buffer, i, held), "seed": 1} for i in range(1, 4))
    drawn = [one.output for one in pipe.many(requests, batch=2)]
    wanted = [one.output for one in pipe.many([{**call(buffer, i), "seed": 1} for i in range(1, 4)], batch=2)]
    for one, right in zip(drawn, wanted, strict=True):
        assert one is not None and right is not None
        assert torch.equal(one.images, right.images) and one.recipes == right.recipes
    for one, other in itertools.combinations(wanted, 2):
        assert one is not None and other is not None and not torch.equal(one.images, other.images)


def test_numbers_that_a_conditioner_takes_as_they_are() -> None:
    """The parsed input of `given` is the caller's tensor."""
    given = ldmkit.get("conditioner", "given")({"kind": "vector", "dim": 2})
    vector = torch.zeros(2)
    assert given.parse(vector, "v").data_ptr() == vector.data_ptr()
    row = {"v": [vector, {"deep": vector}, (vector.numpy(), "text", 3)]}
    (kept, again) = owned_rows([row, row])
    vector.fill_(1.0)
    assert kept is again and float(kept["v"][0].sum() + kept["v"][1]["deep"].sum() + kept["v"][2][0].sum()) == 0
    assert kept["v"][2][1:] == ("text", 3)


def test_a_start_owns_its_picture() -> None:
    image, mask, latents = torch.zeros(3, 8, 8), torch.ones(1, 8, 8), torch.zeros(3, 8, 8)
    start, other = ldmkit.Start(image, mask=mask), ldmkit.Start(latents=latents)
    for tensor in (image, mask, latents):
        tensor.fill_(0.5)
    assert start.image is not None and start.mask is not None and other.latents is not None
    assert start.image.abs().max() == 0 and start.mask.min() == 1 and other.latents.abs().max() == 0


def test_an_output_that_is_written_to_after_it_was_started_from() -> None:
    pipe = tiny_parts.class_pipeline()
    first = pipe({"label": 1}, steps=3)
    kept = first.latents.clone()
    out = pipe({"label": 1}, steps=3, start=first)
    first.latents.fill_(9.0)
    first.images.fill_(0.0)
    start = ldmkit.Start.of(out.recipes[0]["start"])
    assert start.latents is not None and torch.equal(start.latents, kept[0])
