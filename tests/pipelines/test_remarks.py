"""What is drawn as asked for, but may not be what was meant, is said before it is drawn."""

from __future__ import annotations

import warnings

import pytest

import ldmkit
from ldmkit.remarks import DrawingWarning


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    return ldmkit.load("miniworld")


@pytest.mark.parametrize(
    ("inputs", "size", "words"),
    [
        ({"text": "  "}, None, "'text' is an empty text"),
        ({"label": "lake"}, (50, 75), "52x76 is drawn and cut"),
        ({"label": "lake"}, (64, 160), "64x160 is far from that"),
        ({"label": "lake"}, (24, 64), "the model draws 64x64 by itself"),
    ],
)
def test_said_before_the_first_step(pipe: ldmkit.Pipeline, inputs: dict[str, str], size: object, words: str) -> None:
    with pytest.warns(DrawingWarning, match=words):
        pipe.prepare(inputs, size=size)


def test_nothing_is_said_of_what_the_model_was_made_for(pipe: ldmkit.Pipeline) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.prepare([{"text": "a red house"}, {"label": "lake"}], seeds=(0, 1))
        pipe.prepare({"text": "a red house"}, size=(96, 128), negative={"text": ""})


def test_letters_of_unknown_words_are_counted(pipe: ldmkit.Pipeline) -> None:
    with pytest.warns(UserWarning, match=r"'wonderful'.*9 of the 30 tokens that fit go to their letters"):
        pipe.prepare({"text": "a wonderful house"})
