"""A run that ends above 0 leaves noise in its latents: a run that starts from them goes on, or is refused.

Two halves on the same levels are one run where the sampler remembers nothing: the oracle is the run in one piece.
States pass through float32 latents scaled by alpha and back: 1e-5 of the largest.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import tiny_parts
import torch

import ldmkit
from ldmkit.errors import InputError
from ldmkit.replaying import replay

L = {"label": 1}
CALL: dict[str, Any] = {"guidance": 2.0, "seeds": [1, 2], "sampler": "euler"}


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    return tiny_parts.class_pipeline("kl")


@pytest.fixture(scope="module")
def miniworld() -> ldmkit.Pipeline:
    return ldmkit.load("miniworld")


def levels(pipe: ldmkit.Pipeline) -> list[float]:
    return list(pipe.prepare(L, steps=8, **CALL).sigmas)


def half(pipe: ldmkit.Pipeline) -> ldmkit.Output:
    with pytest.warns(UserWarning, match="much noise remains"):
        return pipe(L, grid=levels(pipe)[:5], **CALL)


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    assert float((one - other).abs().max() / other.abs().max()) < 1e-5


@pytest.mark.parametrize("name", ["pipe", "miniworld"])
def test_two_halves_are_one_run(name: str, request: pytest.FixtureRequest) -> None:
    model: ldmkit.Pipeline = request.getfixturevalue(name)
    grid = levels(model)
    whole, first = model(L, grid=grid, **CALL), half(model)
    assert first.noised == grid[4] and whole.noised == 0 and first.row(1).noised == grid[4]
    on = [first, {"image": first}, {"image": first, "strength": 1.0}, [first.row(0), first.row(1)],
          {"latents": first.latents, "noised": first.noised}]  # fmt: skip
    for start in on:
        out = model(L, start=start, grid=grid[4:], **CALL)
        close(out.latents, whole.latents)
        again = replay(model, json.loads(json.dumps(out.recipes[1])))
        close(again.latents, whole.latents[1:])
    if name == "pipe":  # the other makes up a layout for each seed
        other = model(L, start=first, grid=grid[4:], **{**CALL, "seeds": [8, 9]})
        close(other.latents, whole.latents)  # no noise of its own


def test_of_another_pipeline_by_its_latents(pipe: ldmkit.Pipeline) -> None:
    other, first, grid = tiny_parts.class_pipeline("kl"), half(pipe), levels(pipe)
    with pytest.raises(InputError, match=r"\[input\.start-noised\].*no picture yet"):
        other(L, start=first, grid=grid[4:], **CALL)
    assert all(torch.equal(*pair) for pair in zip(pipe.denoiser.parameters(), other.denoiser.parameters(), strict=True))
    out = other(L, start={"latents": first.latents, "noised": first.noised}, grid=grid[4:], **CALL)
    close(out.latents, pipe(L, grid=grid, **CALL).latents)


@pytest.mark.parametrize(("start", "options"), [
    (lambda out: out, {}),  # the model's own levels, from the top
    (lambda out: out, {"grid": slice(3, None)}),
    (lambda out: out, {"grid": slice(5, None)}),
    (lambda out: {"image": out, "strength": 0.8}, {"grid": slice(4, None)}),
    (lambda out: {"image": out, "mask": torch.ones(16, 16, dtype=torch.uint8).numpy() * 255}, {"grid": slice(4, None)}),
    (lambda out: {"latents": out.latents, "noised": 0.0}, {"grid": slice(4, None)}),
    (lambda out: [{"latents": out.latents[0], "noised": out.noised},
                  {"latents": out.latents[1], "strength": 1.0}], {"grid": slice(4, None)}),
    (lambda out: {"image": torch.zeros(3, 16, 16), "noised": out.noised}, {"grid": slice(4, None)}),
])  # fmt: skip
def test_refused(pipe: ldmkit.Pipeline, start: Any, options: dict[str, Any]) -> None:
    first = half(pipe)
    given = {name: levels(pipe)[part] for name, part in options.items()}
    with pytest.raises(InputError, match=r"noise|strength|noised"):
        pipe(L, start=start(first), **given, **CALL)


def test_what_ends_at_the_models_own_last_level_is_a_picture(pipe: ldmkit.Pipeline) -> None:
    """Schedulers of other programs end there, and their pictures are started from."""
    grid = [*levels(pipe)[:-2], pipe.process.sigma_min]
    first = pipe(L, grid=grid, **CALL)
    assert first.noised == 0
    weaker = pipe(L, start={"image": first, "strength": 0.5}, **CALL)
    assert torch.equal(weaker.latents, pipe(L, start={"latents": first.latents, "strength": 0.5}, **CALL).latents)


def test_what_is_said_to_callers_of_other_programs(pipe: ldmkit.Pipeline) -> None:
    for name, words in (("denoising_end", "start=out"), ("denoising_start", '"noised": out.noised')):
        with pytest.raises(InputError) as caught:
            pipe(L, **{name: 0.8})
        assert words in str(caught.value)
