"""Data of the tests: a dataset in memory, and folders of files."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ldmkit_training.data.section import DataSection, open_part
from PIL import Image

from ldmkit.contracts.data import Dataset, Geometry, Sample
from ldmkit.errors import InputError
from ldmkit.models.spec import PartSpec


class Squares(Dataset):
    """A bright square on noise, its box and its map. Samples in `broken` cannot be read."""

    geometry: Mapping[str, Geometry] = {"text": "none", "layout": "boxes", "semantic": "map"}

    def __init__(self, count: int = 10, size: tuple[int, int] = (24, 32), broken: frozenset[int] = frozenset()):
        self.count, self.size, self.broken = count, size, broken

    def __len__(self) -> int:
        return self.count

    def id(self, index: int) -> str:
        return f"{index}.png"

    def __getitem__(self, index: int) -> Sample:
        if index in self.broken:
            raise InputError("bad-file", "damaged on purpose", where=self.id(index))
        draws = np.random.default_rng(index)
        height, width = self.size
        image = draws.integers(0, 100, (height, width, 3), dtype=np.uint8)
        y0, x0 = draws.integers(0, height // 2), draws.integers(0, width // 2)
        y1, x1 = y0 + draws.integers(height // 4, height // 2), x0 + draws.integers(width // 4, width // 2)
        image[y0:y1, x0:x1] = 255
        labels = (image[..., 0] == 255).astype(np.uint8) * 3
        box = [x0 / width, y0 / height, x1 / width, y1 / height]
        text = {"text": f"square {index}"} if index % 2 else {}
        return Sample(self.id(index), image, {**text, "layout": [{"label": "square", "box": box}], "semantic": labels})


def section(**changes: Any) -> DataSection:
    """A section for data that were opened by hand."""
    return DataSection.of({"train": {"type": "by-hand"}, "size": [16, 16], "batch": 4, **changes})


def opened(kind: str, folder: Path, /, **config: Any) -> Dataset:
    """A registered source."""
    return open_part(PartSpec(type=kind, config=config), folder, "data.train")


def picture(path: Path, size: tuple[int, int] = (12, 8), colour: object = (200, 100, 50), mode: str = "RGB") -> Path:
    """A file of one colour; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)  # type: ignore[arg-type]
    return path


def png(array: np.ndarray) -> bytes:
    """Bytes of a PNG."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def lines(path: Path, *entries: Any) -> Path:
    """A file of JSON lines; text is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(e if isinstance(e, str) else json.dumps(e, ensure_ascii=False) for e in entries)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def coco(path: Path, **changes: Any) -> Path:
    """Annotations of two pictures of 12 x 8, a.png with two boxes and b.png with none."""
    content = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 12, "height": 8},
            {"id": 9, "file_name": "b.png", "width": 12, "height": 8},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 4, "bbox": [3, 2, 6, 4], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 3, 8]},
        ],
        "categories": [{"id": 4, "name": "cell"}, {"id": 2, "name": "dust"}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | changes), encoding="utf-8")
    return path


def tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """An archive of members by name, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path
