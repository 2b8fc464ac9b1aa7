"""Numbers of numpy and torch are taken wherever a number is, and recipes hold Python's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import ldmkit
from ldmkit.contracts.value import integer, parse
from ldmkit.errors import InputError, LdmkitError
from ldmkit.files.numbers import listed, plain

FLOATS: list[Callable[[float], Any]] = [
    *(np.float64, np.float32, np.float16, np.array, torch.tensor),
    lambda x: np.array(x, np.float32),
    lambda x: torch.tensor(x, dtype=torch.bfloat16),
    lambda x: torch.tensor(x, requires_grad=True),
]
INTEGERS: list[Callable[[int], Any]] = [np.int64, np.int32, np.uint8, np.array, torch.tensor]


@pytest.mark.parametrize("number", FLOATS)
def test_guidance_strength_and_configs(class_pipe: ldmkit.Pipeline, number: Callable[[float], Any]) -> None:
    """0.5 and 2.5 are exact in every one of these types."""
    picture = np.zeros((16, 16, 3), np.uint8)
    options: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"guidance": number(2.5)}, {"guidance": 2.5}),
        ({"guidance": {"label": number(2.5)}}, {"guidance": {"label": 2.5}}),
        ({"guidance": {"type": "cfg", "scale": number(2.5)}}, {"guidance": 2.5}),
        ({"start": {"image": picture, "strength": number(0.5)}}, {"start": {"image": picture, "strength": 0.5}}),
        ({"sampler": {"type": "ddim", "eta": number(0.5)}}, {"sampler": {"type": "ddim", "eta": 0.5}}),
    ]
    for given, wanted in options:
        one, two = (class_pipe({"label": 3}, steps=2, **given_) for given_ in (given, wanted))
        assert torch.equal(one.images, two.images), given
        assert json.dumps(one.recipes) == json.dumps(two.recipes)


@pytest.mark.parametrize("number", INTEGERS)
def test_steps_seeds_sizes_and_labels(class_pipe: ldmkit.Pipeline, number: Callable[[int], Any]) -> None:
    given: dict[str, Any] = {"steps": number(2), "seeds": number(7), "size": (number(16), number(16))}
    one = class_pipe({"label": number(3)}, **given)
    two = class_pipe({"label": 3}, steps=2, seeds=7, size=(16, 16))
    assert torch.equal(one.images, two.images)
    assert json.dumps(one.recipes) == json.dumps(two.recipes)


@pytest.mark.parametrize("array", [np.array, torch.tensor])
def test_arrays_of_numbers_are_lists(class_pipe: ldmkit.Pipeline, array: Callable[[list[Any]], Any]) -> None:
    grid = [9.5, 2.5, 0.5]
    one = class_pipe({"label": 3}, seeds=array([4, 5]), size=array([16, 16]), grid=array(grid))
    two = class_pipe({"label": 3}, seeds=[4, 5], size=16, grid=grid)
    assert torch.equal(one.images, two.images)
    assert json.dumps(one.recipes) == json.dumps(two.recipes)


@pytest.mark.parametrize(
    "options",
    [
        {"guidance": np.float32("nan")}, {"guidance": torch.tensor(-1.0)}, {"guidance": np.bool_(True)},
        {"guidance": torch.tensor(True)}, {"guidance": np.complex64(1)}, {"guidance": torch.ones((), device="meta")},
        {"steps": np.float32(2)}, {"steps": torch.tensor(True)}, {"steps": np.array([2])},
        {"seeds": np.array([0.5])}, {"seeds": np.zeros((2, 2), int)}, {"seeds": torch.tensor(1.0)},
        {"size": np.array([16.0, 16.0])}, {"size": torch.ones((), device="meta")},
        {"guidance": np.datetime64(3, "ns")}, {"guidance": np.array("2.5")},
        {"guidance": {"label": np.float32("inf")}},
    ],
)  # fmt: skip
def test_what_is_no_number_of_that_kind_is_refused(class_pipe: ldmkit.Pipeline, options: dict[str, Any]) -> None:
    with pytest.raises(LdmkitError) as caught:
        class_pipe({"label": 3}, **{"steps": 2, **options})
    assert isinstance(caught.value, (InputError, ldmkit.errors.SpecError, ldmkit.errors.PluginError))


def test_plain() -> None:
    got = plain({"a": [np.int64(1), (np.float32(0.5), "x")], "b": np.zeros(3)})
    assert got["a"] == [1, (0.5, "x")] and type(got["a"][0]) is int and type(got["a"][1][0]) is float
    assert isinstance(got["b"], np.ndarray)
    assert integer(torch.tensor(True)) is None and integer(np.bool_(True)) is None and integer(np.uint8(200)) == 200
    assert listed(torch.arange(3)) == [0, 1, 2]


def test_a_container_that_holds_itself_is_refused_not_followed() -> None:
    endless: list[object] = [1.0]
    endless.append(endless)
    with pytest.raises(ldmkit.InputError):
        parse(list[float], endless, "endless")
    assert plain(endless)[0] == 1.0
