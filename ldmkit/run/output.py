"""The output of a run: pictures, latents and recipes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from PIL import Image
from torch import Tensor

from ldmkit.contracts.arguments import check_png as check_png
from ldmkit.contracts.arguments import instance_of
from ldmkit.contracts.step import Evaluations
from ldmkit.errors import InputError
from ldmkit.files.json import write_new
from ldmkit.files.pictures import to_pil
from ldmkit.run.written import FRAMES_PER_SECOND, check_out, check_rate, frames_of, write_sample

if TYPE_CHECKING:
    from ldmkit.contracts.codec import Codec


@dataclass(frozen=True)
class Output:
    """The pictures of one call.

    Args:
        images: (B,3,H,W) float32 in [0,1], on the CPU; for videos (B,3,T,H,W) in [0,1]; for vectors and other data
            (B,D,...) as the codec decoded them, without a fixed range.
        latents: (B,C,h,w) float32, the decoded latents; for other data (B,C,*axes).
        write_recipes: creates `recipes`.
        codec: the codec that decoded the latents; None if the pictures were changed afterwards (inpainting).
        visual: whether `images` are pictures or videos rather than other data such as vectors.
        evaluations: counts of the run's network evaluations; None if they were not counted.
        noised: noise level that the run left in the latents, where its grid ends visibly above 0; a run that starts
            from them goes on from there. 0: none.
    """

    images: Tensor
    latents: Tensor
    write_recipes: Callable[[], tuple[dict[str, Any], ...]] = field(repr=False)
    codec: Codec | None = field(default=None, repr=False)
    visual: bool = True
    evaluations: Evaluations | None = field(hash=False, default=None, repr=False)
    noised: float = 0.0

    @cached_property
    def recipes(self) -> tuple[dict[str, Any], ...]:
        """One recipe per picture, with everything needed to reproduce it. Created on first access."""
        return self.write_recipes()

    @property
    def revised_prompts(self) -> tuple[str | None, ...]:
        """Each picture's prompt as it was drawn, where it was rewritten; None where it was not."""
        return tuple(recipe.get("revised_prompt") for recipe in self.recipes)

    def row(self, index: int) -> Self:
        """A copy of one picture of the batch, as an output of its own."""
        return replace(
            self,
            images=self.images[index : index + 1].clone(),
            latents=self.latents[index : index + 1].clone(),
            write_recipes=lambda: (self.recipes[index],),
        )

    def pil(self) -> list[Image.Image]:
        """The pictures as 8-bit RGB.

        Raises:
            InputError: `not-pictures`: use `frames` for videos and `images` for other data.
        """
        if not self.visual or self.images.ndim != 4:
            what = f"an output of shape {list(self.images.shape)} is not a batch of pictures"
            raise InputError("not-pictures", what, where="pil", fits="frames() for videos, images for other data")
        return to_pil(self.images)

    def frames(self) -> list[list[Image.Image]]:
        """The frames of each video as 8-bit RGB; a picture has one.

        Raises:
            InputError: `not-pictures`.
        """
        if not self.visual:
            what = f"an output of shape {list(self.images.shape)} has no frames"
            raise InputError("not-pictures", what, where="frames", fits="images, the tensor itself")
        return [frames_of(sample) for sample in self.images]

    def save(
        self, path: str | Path, *, overwrite: bool = False, fps: float = FRAMES_PER_SECOND, first: int | None = None
    ) -> list[Path]:
        """Write PNGs with embedded recipes, and return their paths.

        Videos are written as animated PNGs, losslessly and with every frame; vectors and other data as safetensors
        files with the tensor `values`. Both also contain their recipes.

        Several pictures are named `name-0.png`, `name-1.png`, ... Existing files are not replaced; the next free number
        is used instead (`name.png`, then `name-1.png`, `name-2.png`, ...).

        Args:
            overwrite: replace existing files `name.png`, or `name-0.png`, `name-1.png`, ..., instead.
            fps: frames per second of videos.
            first: number the files from here, for one picture of many: `name-{first}.png`.

        Raises:
            InputError: not a .png path (.safetensors for other data), or the folder does not exist or is not writable.
        """
        path = check_out(path, visual=self.visual)
        instance_of(overwrite, bool, "overwrite")
        many, number, paths = first is not None or len(self.images) > 1, first or 0, []
        for sample, recipe in zip(self.images, self.recipes, strict=True):
            text = json.dumps(recipe, ensure_ascii=False)
            write = partial(write_sample, sample=sample, visual=self.visual, recipe=text, fps=check_rate(fps))
            paths.append(write_new(path, write, overwrite=overwrite, first=number if many else None))
            if many:  # numbers increase with the pictures, even if some were skipped
                number = int(paths[-1].stem.rpartition("-")[2]) + 1
        return paths
