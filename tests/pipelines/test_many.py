"""Many requests as a stream: in order, in shared batches, with the pixels of single calls, in bounded memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import pytest
import tiny_parts
import torch

import ldmkit
from ldmkit.replaying import replay

TOLERANCE = 1e-5
"""Of pixels in [0, 1]: a convolution of a larger batch sums in another order; measured up to 1e-6 on these networks."""


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    return tiny_parts.class_pipeline()


def mixed(number: int) -> Iterator[dict[str, Any]]:
    """Requests of two sizes, three samplers and two numbers of steps, the fifth of them with a negative input."""
    for i in range(number):
        one: dict[str, Any] = {"inputs": {"label": i % 5}, "seed": 100 + i, "size": (8, 16)[i % 2]}
        one |= {"sampler": ("ddim", "euler", "euler-ancestral")[i % 3], "steps": (2, 3)[i % 4 == 0], "guidance": 2.0}
        yield one | ({"negative": {"label": 4}} if i % 5 == 0 else {})


def test_each_is_what_a_call_of_its_own_draws(pipe: ldmkit.Pipeline) -> None:
    requests = list(mixed(30))
    drawn = list(pipe.many(requests, batch=4))
    assert [one.index for one in drawn] == list(range(30)) and [one.request for one in drawn] == requests
    for one in drawn:
        options = {key: value for key, value in one.request.items() if key not in ("inputs", "seed")}
        alone = pipe(one.request["inputs"], seeds=[one.request["seed"]], **options)
        assert one.error is None and one.output is not None
        assert torch.allclose(one.output.images, alone.images, rtol=0, atol=TOLERANCE)
        assert one.output.recipes == alone.recipes
    last = drawn[-1].output
    assert last is not None and torch.allclose(
        replay(pipe, last.recipes[0]).images, last.images, rtol=0, atol=TOLERANCE
    )


def test_those_that_agree_share_a_batch(pipe: ldmkit.Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    run = ldmkit.Pipeline.run

    def counted(self: ldmkit.Pipeline, prepared: Any, *more: Any) -> ldmkit.Output:
        rows.append(prepared.request.batch)
        return run(self, prepared, *more)

    monkeypatch.setattr(ldmkit.Pipeline, "run", counted)
    requests = [{"inputs": {"label": 1}, "seed": i, "size": (8, 16)[i % 2]} for i in range(16)]
    assert all(one.error is None for one in pipe.many(requests, batch=4, steps=2))
    assert rows == [4, 4, 4, 4]


@pytest.mark.parametrize(("bad", "code"), [
    ({"inputs": {"label": 99}}, "input.label-range"),
    ({"inputs": {"colour": 1}}, "input.unknown-input"),
    ({"inputs": {"label": 1}, "sampler": "none-such"}, "plugin."),
    ({"inputs": {"label": 1}, "cfg_scale": 3}, "input.unknown-argument"),
    ({"inputs": {"label": 1}, "seeds": [1, 2]}, "input.batch-mismatch"),
    ("a picture", "input.not-a-mapping"),
])  # fmt: skip
def test_a_bad_request_costs_no_other(pipe: ldmkit.Pipeline, bad: Any, code: str) -> None:
    good = {"inputs": {"label": 1}, "steps": 2}
    drawn = list(pipe.many([good, bad, good], batch=3))
    assert [one.error is None for one in drawn] == [True, False, True]
    assert drawn[1].error is not None and drawn[1].error.code.startswith(code) and drawn[1].output is None


def test_one_that_fails_while_drawing_costs_no_other(pipe: ldmkit.Pipeline) -> None:
    requests = [{"inputs": {"label": 1}, "seed": seed, "start": {"latents": torch.full((3, 8, 8), value)}}
                for seed, value in enumerate((0.1, 3e38, 0.2))]  # fmt: skip
    drawn = list(pipe.many(requests, batch=3, steps=2))
    assert [one.error is None for one in drawn] == [True, False, True]
    assert drawn[1].error is not None and drawn[1].error.code == "run.not-finite"


def test_an_endless_generator_is_read_a_little_ahead_and_nothing_is_kept(pipe: ldmkit.Pipeline) -> None:
    read, alive = [0], weakref.WeakSet[ldmkit.Output]()

    def endless() -> Iterator[dict[str, Any]]:
        for i in count():
            read[0] += 1
            yield {"inputs": {"label": i % 5}, "seed": i, "steps": 1 + i % 2}

    most = 0
    for one in islice(pipe.many(endless(), batch=2), 60):
        assert one.output is not None
        alive.add(one.output)
        del one
        gc.collect()
        most = max(most, len(alive))
        assert read[0] <= 60 + 4 * 2
    assert most <= 2  # the one that was handed out, and the one that takes its place


def test_what_the_iterable_raises_comes_after_what_was_read(pipe: ldmkit.Pipeline) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield {"inputs": {"label": 1}}
        yield {"inputs": {"label": 2}}
        raise OSError("the disk is gone")

    stream = pipe.many(broken(), steps=2)
    assert [next(stream).index, next(stream).index] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)


@pytest.mark.parametrize("batch", [0, -1, 2.5, True, "4", None, 5000])
def test_a_batch_is_a_number_of_pictures(pipe: ldmkit.Pipeline, batch: Any) -> None:
    with pytest.raises(ldmkit.InputError, match=r"\[input\.batch-size\]"):
        pipe.many([], batch=batch)


def test_each_request_is_parsed_once(pipe: ldmkit.Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[Any] = []
    label = type(pipe.conditioners["label"])
    parse = label.parse

    def counted(self: Any, raw: Any, where: str) -> Any:
        parsed.append(raw)
        return parse(self, raw, where)

    monkeypatch.setattr(label, "parse", counted)
    requests = [{"inputs": {"label": i % 5}, "negative": {"label": 4}, "seed": i, "steps": 2} for i in range(9)]
    assert all(one.error is None for one in pipe.many(requests, batch=4, guidance=2.0))
    assert len(parsed) == 2 * 9
