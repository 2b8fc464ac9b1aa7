"""The published systems as parts, drawn for the documentation.

python -m ldmkit_drawing.systems docs/images/parts
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from ldmkit_drawing.parts import Given, StageParts, System, svg

_WORDS = Given("text", "clip-text", "context")
_T5 = Given("text", "t5-text", "context")
_LOW = (Given("low", "noised-picture", "plane", made=True), Given("low", "noise-level", "vector", made=True))


def _latent(given: tuple[Given, ...], codec: str, beside: tuple[str, ...] = ()) -> StageParts:
    """A latent diffusion model as it was published: noise is predicted, and DDIM draws."""
    return StageParts("", given, "unet", "discrete, eps", "ddim", codec, beside=beside)


SYSTEMS: Mapping[str, System] = {
    "ldm-text": System("Latent diffusion: text to image", (_latent((Given("text", "ldm-text", "context"),), "kl"),)),
    "ldm-class": System("Latent diffusion: class to image", (_latent((Given("label", "label", "context"),), "vq"),)),
    "ldm-layout": System(
        "Latent diffusion: layout to image", (_latent((Given("layout", "layout-tokens", "context"),), "vq"),)
    ),
    "ldm-semantic": System(
        "Latent diffusion: semantic map to image", (_latent((Given("semantic", "semantic", "plane"),), "vq"),)
    ),
    "ldm-upscaling": System(
        "Latent diffusion: super-resolution", (_latent((Given("image", "image", "plane"),), "vq"),)
    ),
    "ldm-inpainting": System(
        "Latent diffusion: inpainting", (_latent((Given("masked", "masked-image", "plane"),), "vq"),)
    ),
    "stable-diffusion": System("Stable Diffusion 1", (_latent((_WORDS,), "kl"),)),
    "stable-diffusion-xl": System(
        "Stable Diffusion XL",
        (
            _latent(
                (
                    _WORDS,
                    Given("text", "clip-text", "context"),
                    Given("text", "clip-pooled", "vector"),
                    Given("size", "size-codes", "vector"),
                ),
                "kl",
            ),
        ),
    ),
    "controlnet": System(
        "ControlNet on Stable Diffusion",
        (_latent((_WORDS, Given("control", "hint", "controlnet")), "kl", ("controlnet",)),),
    ),
    "imagen": System(
        "Imagen, as published in DeepFloyd IF",
        (
            StageParts("base, 64 x 64", (_T5,), "unet", "discrete, eps", "ddpm", "identity"),
            StageParts("up, 256 x 256", (_T5, *_LOW), "unet", "discrete, eps", "ddpm", "identity"),
            StageParts("last, 1024 x 1024", (_WORDS, *_LOW), "unet", "discrete, v", "ddpm", "kl"),
        ),
    ),
    "imagen-small": System(
        "A small Imagen, trained on the miniworld",
        (
            StageParts(
                "base, 32 x 32", (Given("text", "ldm-text", "context"),), "unet", "discrete, v", "dpmpp-2m", "identity"
            ),
            StageParts("up64, 64 x 64", _LOW, "cells", "discrete, x0", "ddim", "identity"),
        ),
    ),
    "dall-e-2": System(
        "DALL-E 2, as published in Karlo",
        (
            StageParts(
                "prior",
                (_WORDS, Given("text", "clip-pooled", "vector")),
                "prior",
                "discrete, x0",
                "ddpm",
                "embedding",
                "embedding",
            ),
            StageParts(
                "decoder, 64 x 64",
                (Given("embedding", "given", "image", made=True), _WORDS, Given("text", "clip-pooled", "vector")),
                "unet",
                "discrete, eps",
                "ddpm",
                "identity",
            ),
            StageParts(
                "up, 256 x 256",
                (Given("low", "image", "plane", made=True),),
                "unet",
                "discrete, eps",
                "ddpm",
                "identity",
            ),
        ),
    ),
    "dall-e-3": System("DALL-E 3, as far as it is published", (_latent((_T5,), "consistency"),)),
    "adm": System(
        "ADM, the pixel model of guided-diffusion",
        (
            StageParts(
                "",
                (Given("label", "class-number", "vector"),),
                "unet",
                "discrete, eps",
                "ddpm",
                "identity",
                beside=("classifier (guidance)",),
            ),
        ),
    ),
}
"""By the name of the drawing's file."""


def drawings() -> Mapping[str, str]:
    """File name -> SVG."""
    return {f"{name}.svg": svg(system) for name, system in SYSTEMS.items()}


def main() -> None:
    """Write every drawing into a folder."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in drawings().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
