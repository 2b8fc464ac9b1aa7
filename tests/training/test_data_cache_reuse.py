"""Where data change, what shows the same as before is not encoded again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counting_codec import TINY, Counting
from data_sources import lines, opened, section
from ldmkit_codecs.kl import KLCodec
from ldmkit_training.data.cache.reading import LatentCache, latent_cache
from PIL import Image

COUNT = 8


@pytest.fixture
def codec() -> Counting:
    torch.manual_seed(0)
    return Counting(Counting.Config.of(TINY))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(COUNT):
        noisy(tmp_path / f"d/{number}.png", number)
    told(tmp_path / "d", "before")
    return tmp_path / "d"


def noisy(path: Path, seed: int) -> None:
    """A picture that no crop makes equal to another one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path)


def told(folder: Path, text: str) -> None:
    box = {"label": "x", "box": [0.25, 0.25, 0.75, 0.75]}
    names = sorted(path.name for path in folder.glob("*.png"))
    lines(
        folder / "metadata.jsonl", *({"file_name": name, "text": f"{text} {name}", "layout": [box]} for name in names)
    )


def made(tmp_path: Path, codec: KLCodec, name: str = "kept", views: int = 3, **changes: Any) -> LatentCache:
    cache = {"folder": name, "batch": 4, "views": views}
    rule = section(cache=cache, **{"fit": "random-crop", "mirror": 0.5, **changes})
    return latent_cache(opened("folder", tmp_path, folder="d"), rule, codec, tmp_path)


def same(one: LatentCache, other: LatentCache) -> bool:
    """To 1e-5: pictures were encoded in batches of another size, and latents are about 1."""
    rows = range(len(one) * one.views)
    assert len(one) == len(other) and [str(one.inputs(i)) for i in rows] == [str(other.inputs(i)) for i in rows]
    return all(
        a is not None and b is not None and torch.allclose(a, b, atol=1e-5)
        for a, b in zip(one.latents(rows), other.latents(rows), strict=True)
    )


def edited(folder: Path) -> None:
    noisy(folder / "3.png", 99)


def edited_without_a_trace(folder: Path) -> None:
    """Its time and size tell nothing, only another file's time does."""
    before = (folder / "3.png").stat()
    noisy(folder / "3.png", 99)
    os.utime(folder / "3.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(folder / "5.png")


def removed(folder: Path) -> None:
    (folder / "0.png").unlink()


def added(folder: Path) -> None:
    noisy(folder / "00.png", 77)


def touched(folder: Path) -> None:
    for path in folder.glob("*.png"):
        os.utime(path)


def retold(folder: Path) -> None:
    told(folder, "after")


CHANGES: list[tuple[Callable[[Path], None], int]] = [
    (edited, 1), (edited_without_a_trace, 1), (removed, 0), (added, 1), (touched, 0), (retold, 0),
]  # fmt: skip


@pytest.mark.parametrize(("change", "new"), CHANGES, ids=lambda case: getattr(case, "__name__", None))
def test_what_shows_the_same_is_not_encoded_again(
    tmp_path: Path, folder: Path, codec: Counting, change: Callable[[Path], None], new: int
) -> None:
    first = made(tmp_path, codec)
    assert codec.seen == 1 + 3 * COUNT, "one picture is looked at for its shape"
    change(folder)
    if change in (removed, added):
        told(folder, "before")
    codec.seen = 0
    again = made(tmp_path, codec)
    assert codec.seen == 1 + 3 * new
    assert same(again, made(tmp_path, codec, "fresh")) and len(first) == COUNT
    if change is retold:
        assert again.inputs(0)[1]["text"] == "after 0.png"


def test_more_views_and_another_mirror_keep_what_they_can(tmp_path: Path, folder: Path, codec: Counting) -> None:
    made(tmp_path, codec)
    codec.seen = 0
    more = made(tmp_path, codec, views=5)
    # two windows of one picture may happen to be the same
    assert COUNT < codec.seen <= 1 + 2 * COUNT and same(more, made(tmp_path, codec, "fresh", views=5))
    codec.seen = 0
    still = made(tmp_path, codec, views=5, mirror=0)
    assert 1 < codec.seen < 1 + 5 * COUNT and same(still, made(tmp_path, codec, "fresh", views=5, mirror=0))


def test_another_codec_or_other_numbers_keep_nothing(tmp_path: Path, folder: Path, codec: Counting) -> None:
    made(tmp_path, codec)
    with torch.no_grad():
        codec.encoder.conv_in.weight[0, 0, 0, 0] += 1e-3
    codec.seen = 0
    made(tmp_path, codec)
    assert codec.seen == 1 + 3 * COUNT


def test_a_change_that_was_interrupted_goes_on(tmp_path: Path, folder: Path, codec: Counting) -> None:
    made(tmp_path, codec)
    noisy(folder / "1.png", 98), noisy(folder / "6.png", 99)
    codec.seen, codec.fatal = 0, 5
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, codec)
    codec.seen, codec.fatal = 0, None
    again = made(tmp_path, codec)
    assert codec.seen <= 3 * 2 and same(again, made(tmp_path, codec, "fresh"))


def test_a_damaged_cache_is_not_taken_from(tmp_path: Path, folder: Path, codec: Counting) -> None:
    """A flipped bit in the latents, and an edit: what is written down in sums no longer holds."""
    made(tmp_path, codec)
    path = tmp_path / "kept/mode.npy"
    data = bytearray(path.read_bytes())
    data[500] ^= 64
    path.write_bytes(data)
    edited(folder)
    codec.seen = 0
    again = made(tmp_path, codec)
    assert codec.seen == 1 + 3 * COUNT and same(again, made(tmp_path, codec, "fresh"))


def test_damaged_pictures_stay_damaged_and_mended_ones_are_encoded(
    tmp_path: Path, folder: Path, codec: Counting
) -> None:
    (folder / "2.png").write_bytes(b"\x89PNG")
    cache = made(tmp_path, codec, damaged="skip")
    assert cache.usable(2)[0] == 3
    noisy(folder / "2.png", 2)
    codec.seen = 0
    again = made(tmp_path, codec, damaged="skip")
    assert codec.seen == 1 + 3 and again.usable(2)[0] == 2 and same(again, made(tmp_path, codec, "fresh"))
