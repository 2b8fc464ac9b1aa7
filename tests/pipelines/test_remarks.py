"""What is drawn as asked for, but may not be what was meant, is said before it is drawn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import ldmkit
from ldmkit.errors import DrawingWarning
from ldmkit.run.remarks import _foreign


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    return ldmkit.load("miniworld")


@pytest.mark.parametrize(
    ("inputs", "size", "words"),
    [
        ({"text": "  "}, None, "'text' is an empty text"),
        ({"label": "lake"}, (50, 75), "52x76 is drawn and cropped"),
        ({"label": "lake"}, (64, 160), "64x160 is far from it"),
        ({"label": "lake"}, (24, 64), "default size is 64x64"),
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


PLAIN = "a red house (with a garden): 10:30, 3 to 4, e.g. [sic]; cats & dogs - see <https://example.org>"


@pytest.mark.parametrize(
    "text",
    [
        "a (red:1.4) house", "a (red house: .8)", "((red)) house", "[[red]] house", "red++ house", "a house-- by it",
        "a house <lora:ink:0.8>", "embedding:easynegative, blur", "red BREAK house", "red AND blue",
        "[red|blue] house", "[red:blue:0.5] house", "a {red|blue} house",
        "a [red] house", "a (red)1.3 house", "a (red:1,4) house", "house::2 tree::1", "a __color__ house",
        '("a tree", "a boat").blend(0.5, 0.5)', "a (cat).swap(dog)",
    ],
)  # fmt: skip
def test_syntax_of_other_programs(pipe: ldmkit.Pipeline, text: str) -> None:
    for inputs, negative in (({"text": text}, {}), ({"text": "a lake"}, {"text": text})):
        with pytest.warns(DrawingWarning, match="in other programs; here it is plain text"):
            pipe.prepare(inputs, negative=negative, guidance=3.0)


INFOTEXT = "a red house\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x512"


@pytest.mark.parametrize(("text", "ours"), [
    (INFOTEXT, "--negative"), (INFOTEXT.replace("\n", " "), "--steps"),
    ("a house\nNegative prompt: blurry", "--negative"), ("a house --no trees", "--negative"),
    ("a house --n blurry --w 512 --s 20", ".jsonl"), ("a house --ar 16:9 --v 6", "--size"),
    ("a house --seed=3", ".jsonl"), ("a house <lora:ink:0.8>", "--lora"), ("a __color__ house", "--prompts"),
])  # fmt: skip
def test_what_says_it_here(pipe: ldmkit.Pipeline, text: str, ours: str) -> None:
    with pytest.warns(DrawingWarning) as caught:
        pipe.prepare({"text": text})
    assert any("in other programs; here it is plain text (" in str(one.message) and ours in str(one.message)
               for one in caught)  # fmt: skip


@pytest.mark.parametrize(
    "text", ["snake__case and dunder_", "a ratio, 3 : 4 -- no trees", "he said (twice) 1.5 times", "[12]"]
)
def test_what_only_looks_like_it(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _foreign([{"text": text}])


@pytest.mark.parametrize("text", [PLAIN, PLAIN.upper(), "A HOUSE AND A LAKE", "well-known -- and c++"])
def test_ordinary_texts_hold_none(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _foreign([{"text": text}])


def test_conditions_that_guidance_leaves_out(pipe: ldmkit.Pipeline) -> None:
    with pytest.warns(DrawingWarning, match="'label', 'layout' has no effect, because"):
        pipe.prepare({"label": "lake"}, guidance=0.0)
    for guidance in (1.0, "none"):
        with pytest.warns(DrawingWarning, match="negative inputs have no effect"):
            pipe.prepare({"label": "lake"}, negative={"label": "snow"}, guidance=guidance)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.prepare({"label": "lake"}, guidance=1.0)
        pipe.prepare({}, guidance=0.0)
        pipe.prepare({"label": "lake"}, negative={"label": "snow"}, guidance=2.0)


def test_a_mask_that_is_black(pipe: ldmkit.Pipeline) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with pytest.warns(DrawingWarning, match="black everywhere"):
        pipe.prepare({"label": "lake"}, start=ldmkit.Start(image=picture, mask=np.zeros((64, 64), bool)))


def test_tensors_that_look_like_pictures_from_0_to_1(pipe: ldmkit.Pipeline) -> None:
    levels = np.random.default_rng(0).integers(140, 256, (64, 64, 3), dtype=np.uint8)
    tensor = torch.from_numpy(levels).permute(2, 0, 1).float() / 255
    with pytest.warns(DrawingWarning, match="0 is mid-grey"):
        pipe.prepare({"label": "lake"}, start=ldmkit.Start(image=tensor))
    for images in (tensor, tensor[None]):
        with pytest.warns(DrawingWarning, match="0 is mid-grey"):
            pipe.encode(images)
    with warnings.catch_warnings():  # a bright file is a bright file, and its range is known
        warnings.simplefilter("error")
        pipe.prepare({"label": "lake"}, start=ldmkit.Start(image=Image.fromarray(levels)))
        pipe.encode([levels, levels / 255])
        pipe.encode(torch.zeros(3, 64, 64))


def test_letters_of_unknown_words_are_counted(pipe: ldmkit.Pipeline) -> None:
    with pytest.warns(UserWarning, match=r"'wonderful'.*9 of the 30 tokens that fit go to their letters"):
        pipe.prepare({"text": "a wonderful house"})
