"""Values that no argument is made for, or that few are: each with the name that `hostile_calls` knows it by."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import io
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


class Faulty:
    """Every question that Python may ask it fails."""

    def _fail(self, *_: object) -> Any:
        raise RuntimeError("a fault of the caller's own")

    __repr__ = __str__ = __len__ = __iter__ = __getitem__ = __bool__ = __eq__ = __float__ = __int__ = __index__ = _fail
    __array__ = __fspath__ = _fail
    __hash__ = object.__hash__


class FaultyRepr:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class FaultyList(list[Any]):
    """A list that cannot be read."""

    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("no iteration")


class FaultyMapping(Mapping[str, Any]):
    """A mapping that names its key and does not give its value."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("no item")

    def __iter__(self) -> Iterator[str]:
        return iter(["label"])

    def __len__(self) -> int:
        return 1


class Colour(enum.Enum):
    """A member of an enumeration."""

    RED = 1


def _holds_itself() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


def _quantised() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.zeros(3, 8, 8), 0.1, 0, torch.quint8)


PYTHON: dict[str, Callable[[], Any]] = {
    "None": lambda: None, "True": lambda: True, "-1": lambda: -1, "5": lambda: 5, "1.5": lambda: 1.5,
    "-0.0": lambda: -0.0, "nan": lambda: math.nan, "inf": lambda: math.inf, "1e308": lambda: 1e308,
    "1e-320": lambda: 1e-320, "2**70": lambda: 2**70, "10**400": lambda: 10**400, "complex": lambda: 1j,
    "empty": lambda: "", "NUL": lambda: "a\0b", "word": lambda: "nonsense", "digits": lambda: "3",
    "arabic digit": lambda: "\u0663", "surrogate": lambda: "\ud800", "escape": lambda: "\x1b[31m",
    "long": lambda: "x" * 5000, "bytes": lambda: b"ab", "bytearray": lambda: bytearray(b"ab"),
    "set": lambda: {1, 2}, "dict": dict, "dict of number": lambda: {"a": 1}, "dict by number": lambda: {1: 2},
    "list": list, "list of None": lambda: [None], "list of numbers": lambda: [2.5, 0.0],
    "list of text": lambda: ["a", "b"], "list of digits": lambda: ["3", "4"], "list of bools": lambda: [True, False],
    "list of NaN": lambda: [math.nan, 0.0], "list 1e308": lambda: [1e308, 0], "list 1e-320": lambda: [1.0, 1e-320],
    "huge list": lambda: [2**2000, 0], "holds itself": _holds_itself, "deque": lambda: deque([1.0, 0.0]),
    "generator": lambda: (i for i in range(3)), "range": lambda: range(2, 0, -1), "function": lambda: lambda *_: 1,
    "class": lambda: int, "object": object, "enum": lambda: Colour.RED, "date": lambda: datetime.date(2020, 1, 1),
    "decimal": lambda: decimal.Decimal("NaN"), "fraction": lambda: fractions.Fraction(1, 3),
    "exception": lambda: ValueError("x"), "module": lambda: math, "slice": lambda: slice(1, 2),
    "ellipsis": lambda: ..., "file": lambda: io.BytesIO(b"x"),
    "no path": lambda: Path("/no/such"), "NUL path": lambda: Path("a\0b"), "device file": lambda: Path("/dev/zero"),
}  # fmt: skip

FAULTY: dict[str, Callable[[], Any]] = {
    "faulty": Faulty, "list of faulty": lambda: [Faulty()], "dict of faulty": lambda: {"label": Faulty()},
    "no repr": FaultyRepr, "key without repr": lambda: {FaultyRepr(): 1}, "no iteration": lambda: FaultyList([1]),
    "no items": FaultyMapping, "type without repr": lambda: {"type": FaultyRepr()},
    "config without repr": lambda: {"type": "ddim", "config": FaultyRepr()},
}  # fmt: skip

ARRAYS: dict[str, Callable[[], Any]] = {
    "objects": lambda: np.array([None, "a"], dtype=object), "texts": lambda: np.array(["a", "b"]),
    "complex array": lambda: np.zeros((8, 8, 3), np.complex64), "dates": lambda: np.zeros((8, 8), "datetime64[s]"),
    "records": lambda: np.zeros((8, 8), [("a", "i4")]), "infinite": lambda: np.full((8, 8, 3), np.inf, np.float16),
    "empty array": lambda: np.zeros((0,)), "NaN scalar": lambda: np.float64("nan"), "int scalar": lambda: np.int8(2),
    "backwards": lambda: np.zeros((8, 8, 3), np.uint8)[::-1, :, ::-1], "five axes": lambda: np.zeros((1, 1, 8, 8, 3)),
    "other endian": lambda: np.zeros((8, 8, 3), ">f4"), "long doubles": lambda: np.zeros((8, 8, 3), np.longdouble),
    "bools": lambda: np.zeros((8, 8), bool), "uint64": lambda: np.full((8, 8), 2**64 - 1, np.uint64),
    "masked": lambda: np.ma.masked_array(np.zeros((8, 8)), mask=True),
    "picture": lambda: Image.new("RGB", (8, 8)), "no pixels": lambda: Image.new("RGB", (0, 0)),
    "32 bits": lambda: Image.new("I", (8, 8)), "floats": lambda: Image.new("F", (8, 8)),
    "Lab": lambda: Image.new("LAB", (8, 8)), "closed": lambda: _closed(),
}  # fmt: skip

TENSORS: dict[str, Callable[[], Any]] = {
    "meta": lambda: torch.zeros(3, 8, 8, device="meta"), "meta number": lambda: torch.zeros((), device="meta"),
    "meta batch": lambda: torch.zeros(1, 3, 16, 16, device="meta"),
    "sparse": lambda: torch.zeros(3, 8, 8).to_sparse(), "rows": lambda: torch.zeros(8, 8).to_sparse_csr(),
    "complex": lambda: torch.zeros(3, 8, 8, dtype=torch.complex64), "quantised": _quantised,
    "float8": lambda: torch.zeros(3, 8, 8).to(torch.float8_e4m3fn), "doubles": lambda: torch.zeros(3, 8, 8).double(),
    "integers": lambda: torch.zeros(1, 2, 4, 4, dtype=torch.long), "no items tensor": lambda: torch.zeros(0),
    "no rows": lambda: torch.zeros(0, 3, 16, 16), "no height": lambda: torch.zeros(1, 3, 0, 16),
    "number": lambda: torch.tensor(1.0), "truth": lambda: torch.tensor(True),
    "NaN": lambda: torch.full((1, 2, 4, 4), math.nan), "large": lambda: torch.full((1, 2, 4, 4), 1e38),
    "four channels": lambda: torch.zeros(1, 4, 16, 16), "nested": lambda: torch.nested.nested_tensor([torch.zeros(2)]),
    "with gradient": lambda: torch.zeros(3, 8, 8, requires_grad=True),
    "dtype": lambda: torch.int8, "device": lambda: "cuda:99", "no device": lambda: torch.device("meta"),
    "module of torch": lambda: torch.nn.Linear(1, 1),
}  # fmt: skip

VALUES = {**PYTHON, **FAULTY, **ARRAYS, **{f"{name} tensor": make for name, make in TENSORS.items()}}


def _closed() -> Image.Image:
    picture = Image.new("RGB", (8, 8))
    picture.close()
    return picture
