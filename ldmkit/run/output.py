"""What comes out of a run: pictures, latents, and the recipe in the PNG."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from ldmkit.contracts.arguments import check_png as check_png
from ldmkit.contracts.arguments import instance_of
from ldmkit.errors import InputError
from ldmkit.files.json import write_new
from ldmkit.files.pictures import to_pil

if TYPE_CHECKING:
    from ldmkit.contracts.codec import Codec

RECIPE_KEY = "ldmkit"


@dataclass(frozen=True)
class Output:
    """Pictures of one call.

    Args:
        images: (B,3,H,W) float32 in [0,1], on the CPU.
        latents: (B,C,h,w) float32, what the codec decoded.
        write_recipes: makes `recipes`.
        codec: what decoded the latents, where the pictures are that and nothing else.
    """

    images: Tensor
    latents: Tensor
    write_recipes: Callable[[], tuple[dict[str, Any], ...]] = field(repr=False)
    codec: Codec | None = field(default=None, repr=False)

    @cached_property
    def recipes(self) -> tuple[dict[str, Any], ...]:
        """One a picture: everything that is needed to draw it again. Written when first asked for."""
        return self.write_recipes()

    def pil(self) -> list[Image.Image]:
        """The pictures as 8-bit RGB."""
        return to_pil(self.images)

    def save(self, path: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write PNGs that carry their recipes, and return where they are.

        Several pictures become `name-0.png`, `name-1.png`, ... No file is replaced: a name that is taken is passed
        over for the next free number (`name.png`, then `name-1.png`, `name-2.png`, ...).

        Args:
            overwrite: replace what has the names `name.png`, or `name-0.png`, `name-1.png`, ... instead.

        Raises:
            InputError: not a .png path, or the folder does not exist or takes no files.
        """
        path = check_png(path)
        instance_of(overwrite, bool, "overwrite")
        pictures = self.pil()
        many, number, paths = len(pictures) > 1, 0, []
        for picture, recipe in zip(pictures, self.recipes, strict=True):
            info = PngImagePlugin.PngInfo()
            info.add_itxt(RECIPE_KEY, json.dumps(recipe, ensure_ascii=False))
            write = partial(picture.save, format="PNG", pnginfo=info)
            paths.append(write_new(path, write, overwrite=overwrite, first=number if many else None))
            if many:  # numbers rise with the pictures, also where some were passed over
                number = int(paths[-1].stem.rpartition("-")[2]) + 1
        return paths


def stack(images: Sequence[Tensor]) -> Tensor:
    """Pictures of one size as a batch.

    Raises:
        InputError: there are none, or their sizes differ.
    """
    sizes = sorted({tuple(image.shape[-2:]) for image in images})
    if len(sizes) != 1:
        shown = ", ".join(f"{h}x{w}" for h, w in sizes) or "none"
        raise InputError("picture-sizes", f"pictures of a batch have one size, got {shown}", where="images")
    return torch.stack(list(images))
