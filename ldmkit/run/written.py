"""The files that results are written as: pictures as PNG, videos as animated PNG, other data as safetensors."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageSequence, PngImagePlugin
from torch import Tensor

from ldmkit.contracts.arguments import check_png, path_of
from ldmkit.contracts.axes import shown_size
from ldmkit.errors import InputError, SourceError, shown
from ldmkit.files.json import check_target
from ldmkit.files.numbers import plain
from ldmkit.files.picture_files import MAX_FILE_BYTES
from ldmkit.files.pictures import read_picture, to_pil
from ldmkit.files.reading import read_file
from ldmkit.models.weights import open_safetensors, read_metadata, write_safetensors

RECIPE_KEY = "ldmkit"
VALUES = "values"
"""Name of the tensor in a file of data that are neither a picture nor a video."""
FRAMES_PER_SECOND = 16.0


def check_out(path: str | Path, *, visual: bool | None = None) -> Path:
    """A path that a result can be written to, and its recipe with it; asked before a long run, not after it.

    Args:
        visual: whether it is a picture or a video; None: that is not known yet.

    Raises:
        InputError: `not-png`, `not-safetensors`: another suffix; or its folder does not exist or is not writable.
    """
    path = path_of(path, "path")
    if visual is True or (visual is None and path.suffix.lower() != ".safetensors"):
        return check_png(path)
    if path.suffix.lower() != ".safetensors":
        what = "the model draws vectors, or other data that are no pictures"
        raise InputError("not-safetensors", what, where=str(path), fits="a path ending in .safetensors")
    check_target(path)
    return path


def write_sample(path: Path, sample: Tensor, *, visual: bool, recipe: str | None, fps: float) -> None:
    """Write one row of an output: a picture (3,H,W) or video (3,T,H,W) in [0,1] as PNG, other data as safetensors.

    Frames of a video are kept one by one, equal ones too, each for 1 / fps seconds.
    """
    if not visual:
        write_safetensors(path, {VALUES: sample}, {} if recipe is None else {RECIPE_KEY: recipe})
        return
    info = PngImagePlugin.PngInfo()
    if recipe is not None:
        info.add_itxt(RECIPE_KEY, recipe)
    first, *more = frames_of(sample)
    if not more:
        first.save(path, format="PNG", pnginfo=info)
        return
    # Pillow merges equal frames whose ways of blending are equal; over an opaque picture both ways give the same
    blend = [i % 2 for i in range(1 + len(more))]
    first.save(
        path, format="PNG", pnginfo=info, save_all=True, append_images=more, duration=1000 / fps, loop=0, blend=blend
    )


def check_rate(fps: object) -> float:
    """Frames a second, above 0 and up to 1000, which is what the unit of an animated PNG's durations allows.

    Raises:
        InputError: `fps`.
    """
    rate = plain(fps)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.02 <= rate <= 1000:
        raise InputError("fps", f"got {shown(fps)}", where="fps", fits="frames a second, 0.02 to 1000")
    return float(rate)


def frames_of(sample: Tensor) -> list[Image.Image]:
    """8-bit RGB frames of a picture (3,H,W) or video (3,T,H,W) in [0,1]."""
    return to_pil(sample if sample.ndim == 3 else sample.transpose(0, 1))


def stored_recipe(path: Path) -> str | None:
    """The recipe's text in a file that `write_sample` wrote; None: there is none.

    Raises:
        SourceError: no such file, or neither PNG nor safetensors.
    """
    if path.suffix.lower() == ".safetensors":
        return read_metadata(path).get(RECIPE_KEY)
    with _opened(path) as picture:
        try:
            text = picture.info.get(RECIPE_KEY)
            if text is None and hasattr(picture, "text"):
                text = picture.text.get(RECIPE_KEY)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise SourceError("not-a-png", f"cannot be read as a PNG: {error}", where=str(path)) from None
    return None if text is None else str(text)


def difference(path: Path, sample: Tensor, *, visual: bool) -> float:
    """The largest difference of a file that `write_sample` wrote to a row of an output, in 8-bit steps of pictures and
    videos, which the file is rounded to; in their own unit of other data.

    Raises:
        SourceError: `other-size`; `no-values`: safetensors that ldmkit did not write.
        InputError: a damaged picture, and likewise (`picture-*`).
    """
    if not visual:
        tensors = open_safetensors(path)
        if VALUES not in tensors:
            raise SourceError("no-values", f"there is no tensor `{VALUES}` in it", where=str(path))
        before = tensors[VALUES].read(True)
        _check_same(before.shape, sample.shape, path)
        return float((before - sample).abs().max())
    levels = sample.mul(255).round()
    if sample.ndim == 3:
        before = read_picture(path, str(path))
        _check_same(before.shape, sample.shape, path)
        return float(round(float((before - (levels / 127.5 - 1)).abs().max()) * 127.5))
    with _opened(path) as picture:
        found = (3, getattr(picture, "n_frames", 1), picture.height, picture.width)
        _check_same(found, sample.shape, path)
        frames = [torch.from_numpy(np.array(f.convert("RGB"))) for f in ImageSequence.Iterator(picture)]
    return float((torch.stack(frames).permute(3, 0, 1, 2) - levels).abs().max())


def _check_same(found: Sequence[int], drawn: Sequence[int], path: Path) -> None:
    if tuple(found) != tuple(drawn):
        what = f"the file holds {shown_size(found[1:])}, its recipe draws {shown_size(drawn[1:])}"
        raise SourceError("other-size", what, where=str(path))


def _opened(path: Path) -> Image.Image:
    """A PNG, not decoded yet.

    Raises:
        SourceError: `not-a-png`, and those of `read_file`.
    """
    data = read_file(path, MAX_FILE_BYTES)
    try:
        return Image.open(io.BytesIO(data), formats=("PNG",))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SourceError("not-a-png", f"cannot be read as a PNG: {error}", where=str(path)) from None
