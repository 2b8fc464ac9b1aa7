"""Result files: pictures as PNG, videos as animated PNG, other data as safetensors."""

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
"""Name of the tensor in a safetensors result."""
FRAMES_PER_SECOND = 16.0


def check_out(path: str | Path, *, visual: bool | None = None) -> Path:
    """A path that a result with its recipe can be written to, checked before a long run.

    Args:
        visual: whether the result is a picture or a video; None if not yet known.

    Raises:
        InputError: `not-png`, `not-safetensors`: another suffix; or its folder does not exist or is not writable.
    """
    path = path_of(path, "path")
    if visual is True or (visual is None and path.suffix.lower() != ".safetensors"):
        return check_png(path)
    if path.suffix.lower() != ".safetensors":
        what = "the model's results are not pictures or videos"
        raise InputError("not-safetensors", what, where=str(path), fits="a path ending in .safetensors")
    check_target(path)
    return path


def write_sample(path: Path, sample: Tensor, *, visual: bool, recipe: str | None, fps: float) -> None:
    """Write one row of an output: a picture (3,H,W) or video (3,T,H,W) in [0,1] as PNG, other data as safetensors.

    All frames of a video are kept, including equal ones, each for 1 / fps seconds.
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
    # Pillow merges equal frames unless their blend modes differ; for opaque pictures both modes are equivalent
    blend = [i % 2 for i in range(1 + len(more))]
    first.save(
        path, format="PNG", pnginfo=info, save_all=True, append_images=more, duration=1000 / fps, loop=0, blend=blend
    )


def check_rate(fps: object) -> float:
    """Frames per second, 0.02 to 1000, limited by the unit of durations in animated PNGs.

    Raises:
        InputError: `fps`.
    """
    rate = plain(fps)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.02 <= rate <= 1000:
        raise InputError("fps", f"got {shown(fps)}", where="fps", fits="frames per second, 0.02 to 1000")
    return float(rate)


def frames_of(sample: Tensor) -> list[Image.Image]:
    """8-bit RGB frames of a picture (3,H,W) or video (3,T,H,W) in [0,1]."""
    return to_pil(sample if sample.ndim == 3 else sample.transpose(0, 1))


def stored_recipe(path: Path) -> str | None:
    """The recipe's text in a file written by `write_sample`; None if there is none.

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


def read_values(path: Path) -> Tensor:
    """The numbers of a result that is not a picture or a video, as `write_sample` wrote them.

    Raises:
        SourceError: no such file, not a safetensors file; `no-values`: one that ldmkit did not write.
    """
    tensors = open_safetensors(path)
    if VALUES not in tensors:
        raise SourceError("no-values", f"it contains no tensor `{VALUES}`", where=str(path))
    return tensors[VALUES].read(True)


def difference(path: Path, sample: Tensor, *, visual: bool) -> float:
    """The largest difference between a file written by `write_sample` and a row of an output: in 8-bit levels for
    pictures and videos, which are stored rounded, and in the data's unit otherwise.

    Raises:
        SourceError: `other-size`; `no-values`: a safetensors file that ldmkit did not write.
        InputError: `picture-*`: a damaged picture.
    """
    if not visual:
        before = read_values(path)
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
        what = f"the file has size {shown_size(found[1:])}, but its recipe gives {shown_size(drawn[1:])}"
        raise SourceError("other-size", what, where=str(path))


def _opened(path: Path) -> Image.Image:
    """A PNG, not yet decoded.

    Raises:
        SourceError: `not-a-png`, and as `read_file`.
    """
    data = read_file(path, MAX_FILE_BYTES)
    try:
        return Image.open(io.BytesIO(data), formats=("PNG",))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SourceError("not-a-png", f"cannot be read as a PNG: {error}", where=str(path)) from None
