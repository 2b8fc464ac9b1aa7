"""Does the name draw the emoji? Captions drawn by the model of `examples/emoji`, and looked up among ten pictures.

    python benchmarks/emoji_eval.py examples/emoji/recipe.yaml --checkpoints --out sheet.png
    python benchmarks/emoji_eval.py examples/emoji/recipe.yaml --training --number 123

A drawing is compared with the picture of its caption and nine others of the same set, drawn at random but the same for
every model: `colours`, whether the right one is nearest by histogram of colours (4 levels a channel, roots of shares);
`shape`, whether it is nearest by the picture itself, at 16x16 pixels in all colours. Chance is 0.1. `_shuffled`: the
same where each drawing is taken for another caption's. With `--training` the captions are trained ones, which tells
remembering from understanding; words of held-out captions stand in other captions, but never together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from real_pictures import Held, Picture, measure, options

AMONG = 10
SMALL = 16


def colours(picture: Picture) -> NDArray[Any]:
    """Shares of 64 colours."""
    codes = (picture // 64).astype(int) @ np.array([16, 4, 1])
    return np.sqrt(np.bincount(codes.ravel(), minlength=64) / codes.size)


def shape(picture: Picture) -> NDArray[Any]:
    """The small picture, as a vector."""
    return np.asarray(Image.fromarray(picture).resize((SMALL, SMALL), Image.Resampling.BOX), float).ravel()


def found(drawn: Sequence[NDArray[Any]], real: Sequence[NDArray[Any]]) -> float:
    """How often drawing i is nearest to picture i, among it and nine others."""
    random, hits = np.random.default_rng(0), 0
    for i, vector in enumerate(drawn):
        others = random.choice([j for j in range(len(real)) if j != i], min(AMONG, len(real)) - 1, replace=False)
        distances = [float(np.abs(vector - real[j]).sum()) for j in (i, *others)]
        hits += min(distances) == distances[0]
    return hits / len(drawn)


def scores(pictures: Sequence[Picture], asked: Held) -> dict[str, float]:
    """Both figures, with the control."""
    figures = {}
    for name, feature in (("colours", colours), ("shape", shape)):
        drawn, real = ([feature(p) for p in some] for some in (pictures, asked.pictures))
        figures[name] = found(drawn, real)
        half = len(real) // 2
        figures[f"{name}_shuffled"] = found(drawn, real[half:] + real[:half])
    return {name: round(value, 3) for name, value in figures.items()}


def shown(picture: Picture, inputs: Mapping[str, Any]) -> list[Picture]:
    """The picture over its caption."""
    height, width, _ = picture.shape
    card = Image.new("RGB", (2 * width, height + 14), "white")
    card.paste(Image.fromarray(picture), (width // 2, 0))
    ImageDraw.Draw(card).text((2, height), str(inputs["text"])[:24], fill="black")
    return [np.asarray(card)]


if __name__ == "__main__":
    measure(options(str(__doc__)).parse_args(), scores, shown)
