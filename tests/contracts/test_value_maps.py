"""Maps of real values from files, arrays and tensors of every kind; what would be read as other numbers is refused."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter
from torch import Tensor

import ldmkit
from ldmkit import InputError, ValueMap
from ldmkit.errors import SpecError

UNIT, METRES = ValueMap(), ValueMap(low=0, high=80)
MILLIMETRES = ValueMap(low=0, high=10_000, integers="values")
NORMALS = ValueMap(channels=3, low=-1, high=1, mirror=(-1, 1, 1))
LEVELS = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
LEVELS[0, :2] = 0, 65535
VALUES = np.random.default_rng(1).uniform(0, 80, (5, 7))


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png(depth: int, colour: int, rows: bytes, size: tuple[int, int] = (2, 2), extra: bytes = b"") -> bytes:
    """A PNG by hand: Pillow does not write all of them."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(array: np.ndarray, bits: int, sample: int, photometric: int = 1) -> bytes:
    """An uncompressed TIFF (H, W[, 3]) of one strip, in the array's byte order."""
    order = ">" if array.dtype.byteorder == ">" else "<"
    height, width = array.shape[:2]
    count, data = (array.shape[2] if array.ndim == 3 else 1), array.tobytes()
    start = 8 + 2 + 12 * 10 + 4
    per_sample = {258: bits, 339: sample}
    single = {256: width, 257: height, 259: 1, 262: photometric, 273: start + 4 * count, 277: count, 278: height}
    entries = []
    for tag in sorted({**per_sample, **single, 279: 0}):
        if tag in per_sample and count > 2:
            where = start if tag == 258 else start + 2 * count
            entries.append(struct.pack(order + "HHII", tag, 3, count, where))
        elif tag in per_sample:
            entries.append(struct.pack(order + "HHIHH", tag, 3, 1, per_sample[tag], 0))
        else:
            entries.append(struct.pack(order + "HHII", tag, 4, 1, {**single, 279: len(data)}[tag]))
    lists = struct.pack(f"{order}{2 * count}H", *[bits] * count, *[sample] * count)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(entries))
    return head + b"".join(entries) + struct.pack(order + "I", 0) + lists + data


# ---- what is read


@pytest.mark.parametrize("order", "<>")
def test_sixteen_bits_of_any_file_are_shares_of_the_range(order: str, tmp_path: Path) -> None:
    wanted = LEVELS / 65535 * 80
    sources = [
        tiff(LEVELS.astype(f"{order}u2"), 16, 1),
        npy(LEVELS.astype(f"{order}u2")),
        LEVELS.astype(f"{order}u2"),
        saved(Image.fromarray(LEVELS)),
        Image.frombuffer("I;16B", (7, 5), LEVELS.astype(">u2").tobytes(), "raw", "I;16B", 0, 1),
        b"P5 7 5 65535\n" + LEVELS.astype(">u2").tobytes(),
    ]
    (tmp_path / "map.png").write_bytes(sources[3])
    (tmp_path / "map.npy").write_bytes(sources[1])
    for source in [*sources, tmp_path / "map.png", str(tmp_path / "map.npy")]:
        found = METRES.read(source)
        assert found.shape == (1, 5, 7) and found.dtype == torch.float32 and found.is_contiguous()
        # float32 of values up to 80: half of 2^-17
        np.testing.assert_allclose(found[0].numpy(), wanted, rtol=0, atol=4e-6)
        assert found[0, 0, 0] == 0 and found[0, 0, 1] == 80


def test_integers_are_values_where_the_field_says_so() -> None:
    depth = np.array([[0, 1, 2], [300, 9_999, 10_000]], np.uint16)
    for source in (
        depth, saved(Image.fromarray(depth)), tiff(depth, 16, 1), tiff(depth.astype("<i4"), 32, 2), npy(depth),
        depth.astype(np.int64), depth.astype(">i2"), depth.tolist(), saved(Image.fromarray(depth), "TIFF"),
    ):  # fmt: skip
        assert MILLIMETRES.read(source).tolist() == [depth.tolist()]
    with pytest.raises(InputError, match=r"0 to 12500"):
        MILLIMETRES.read(np.array([[0, 12_500]], np.uint16))


@pytest.mark.parametrize("kind", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "longdouble"])
def test_floats_are_the_values(kind: str) -> None:
    values = VALUES.astype(np.dtype(kind))
    wanted = values.astype(np.float32)
    for array in (values, np.asfortranarray(values), np.repeat(values, 2, 1)[:, ::2], values[..., None]):
        assert np.array_equal(METRES.read(array)[0].numpy(), wanted)
        if kind != "longdouble":
            assert np.array_equal(METRES.read(npy(array))[0].numpy(), wanted)


def test_floats_of_files_tensors_and_rows() -> None:
    wanted = VALUES.astype(np.float32)
    picture = Image.fromarray(wanted)
    pfm = b"Pf 7 5 -1.0\n" + wanted[::-1].astype("<f4").tobytes()
    sources = [picture, saved(picture, "TIFF"), saved(picture, "TIFF", compression="tiff_deflate"), pfm]
    sources += [tiff(wanted.astype(">f4"), 32, 3), tiff(wanted, 32, 3), wanted.tolist()]
    sources += [torch.from_numpy(wanted), torch.from_numpy(VALUES)[None], torch.from_numpy(wanted).T.contiguous().T]
    for source in sources:
        assert np.array_equal(METRES.read(source)[0].numpy(), wanted)


def test_eight_bits_grey_and_colours() -> None:
    grey = np.array([[0, 51], [102, 255]], np.uint8)
    for source in (
        grey,
        Image.fromarray(grey),
        saved(Image.fromarray(grey).convert("RGB")),
        saved(Image.fromarray(grey), "BMP"),
    ):
        np.testing.assert_allclose(UNIT.read(source)[0], grey / 255, atol=1e-7)
    assert UNIT.read(np.array([[True, False]])).tolist() == [[[1, 0]]]
    assert UNIT.read(saved(Image.fromarray(grey > 99))).tolist() == [[[0, 0], [1, 1]]]
    colours = np.random.default_rng(2).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    for source in (colours, saved(Image.fromarray(colours)), np.asfortranarray(colours)):
        np.testing.assert_allclose(NORMALS.read(source), np.moveaxis(colours / 127.5 - 1, -1, 0), atol=1e-7)
    flow = np.random.default_rng(3).normal(size=(4, 6, 2)).clip(-3, 3)
    assert ValueMap(channels=2, low=-3, high=3).read(npy(flow)).shape == (2, 4, 6)


def test_a_written_map_is_read_exactly() -> None:
    field = Annotated[Tensor, NORMALS]
    values = torch.rand(3, 4, 5) * 2 - 1
    text = TypeAdapter(field).dump_python(values, mode="json")
    assert torch.equal(TypeAdapter(field).validate_python(text), values)
    assert torch.equal(NORMALS.read(NORMALS.write(values)), values)
    assert pickle.loads(pickle.dumps(NORMALS)) == NORMALS
    schema = TypeAdapter(field).json_schema()
    assert (
        schema["format"] == "value-map" and "[-1, 1]" in schema["description"] and "3 channel" in schema["description"]
    )


def test_where_a_model_has_such_a_field_the_error_names_it() -> None:
    class Scene(ldmkit.Value):
        refusal = InputError
        depth: Annotated[Tensor, METRES]

    assert Scene.of({"depth": [[1.5, 80]]}).depth.tolist() == [[[1.5, 80]]]
    with pytest.raises(InputError, match=r"Scene\.depth: values from 1 to 81"):
        Scene.of({"depth": [[1, 81]]})


# ---- what is refused

NAN = np.array([[0.5, np.nan], [np.inf, 1]])
BROKEN = {
    "NaN": (UNIT, NAN, "picture-not-finite", "2 of 4 values"),
    "NaN in a file": (UNIT, saved(Image.fromarray(NAN.astype(np.float32)), "TIFF"), "picture-not-finite", "2 of 4"),
    "too high": (UNIT, np.array([[0.0, 1.1]]), "picture-range", "0 to 1.1"),
    "too low": (METRES, torch.tensor([[-0.5, 3.0]]), "picture-range", "-0.5 to 3"),
    "beyond float32": (UNIT, np.array([[0, 1e300]]), "picture-range", "1e[+]300"),
    "levels as floats": (UNIT, LEVELS.astype(np.float32), "picture-range", "65535"),
    "channels": (UNIT, np.zeros((4, 4, 3)), "picture-channels", "3 channel"),
    "channels first": (NORMALS, np.zeros((3, 4, 5)), "picture-channels", "5 channel.*moveaxis"),
    "channels of a tensor": (NORMALS, torch.zeros(1, 4, 5), "picture-channels", "1 channel"),
    "grey for three": (NORMALS, saved(Image.fromarray(LEVELS)), "picture-channels", "1 channel"),
    "colours for one": (UNIT, Image.new("RGB", (2, 2), (255, 0, 0)), "picture-not-grey", "colour"),
    "a palette of colours": (UNIT, Image.new("RGB", (2, 2), (255, 0, 0)).quantize(2), "picture-not-grey", "colour"),
    "transparent": (UNIT, Image.new("LA", (2, 2), (255, 7)), "picture-alpha", "transparent"),
    "CMYK": (UNIT, Image.new("CMYK", (2, 2)), "picture-mode", "CMYK"),
    "unknown scale": (UNIT, np.zeros((2, 2), np.int64), "picture-dtype", "int64.*full scale"),
    "32 bits": (UNIT, tiff(np.zeros((2, 2), "<i4"), 32, 2), "picture-levels", "full scale"),
    "signed 16 bits": (UNIT, tiff(np.zeros((2, 2), "<i2"), 16, 2), "picture-levels", "full scale"),
    "signed 8 bits": (UNIT, tiff(np.zeros((2, 2), "i1"), 8, 2), "picture-levels", "signed"),
    "white is zero": (UNIT, tiff(LEVELS, 16, 1, photometric=0), "picture-levels", "0 is white"),
    "16-bit colours": (NORMALS, png(16, 2, (b"\0" + b"\x12\x34" * 6) * 2), "picture-levels", "16 bits per"),
    "16-bit colour TIFF": (NORMALS, tiff(np.zeros((2, 2, 3), "<u2"), 16, 1, 2), "picture-levels", "16 bits per"),
    "16 bits and alpha": (UNIT, png(16, 4, (b"\0" + b"\x12\x34\xff\xff" * 2) * 2), "picture-levels", "16 bits"),
    "two bits as values": (MILLIMETRES, png(2, 0, b"\0\x90\0\xe0"), "picture-levels", "scaled to 8 bits"),
    "PGM as values": (MILLIMETRES, b"P5 2 2 1000\n" + bytes(8), "picture-levels", "scale its levels"),
    "flags as values": (MILLIMETRES, np.zeros((2, 2), bool), "picture-dtype", "two levels"),
    "PFM with a factor": (UNIT, b"Pf 2 2 -2.0\n" + bytes(16), "picture-levels", "scales the values by 2"),
    "64-bit TIFF": (UNIT, tiff(np.zeros((2, 2), "<f8"), 64, 3), "picture-unreadable", "64-bit floats"),
    "complex": (UNIT, np.zeros((2, 2), complex), "picture-dtype", "complex"),
    "an archive": (UNIT, b"PK\x03\x04" + bytes(40), "picture-unreadable", "npz"),
    "damaged npy": (UNIT, npy(VALUES)[:-8], "picture-unreadable", "damaged"),
    "masked": (UNIT, np.ma.masked_equal(np.zeros((2, 2)), 0), "picture-masked", "masked"),
    "axes": (UNIT, np.zeros((1, 2, 2, 1)), "picture-shape", "shape"),
    "empty": (UNIT, np.zeros((0, 2)), "picture-shape", "shape"),
    "ragged": (UNIT, [[0, 1], [0]], "picture-shape", "differ in length"),
    "flags among numbers": (UNIT, [[0, True]], "picture-dtype", "numbers"),
    "whole tensor": (UNIT, torch.zeros(2, 2, dtype=torch.int64), "picture-dtype", "int64"),
    "no file": (UNIT, "no/such.npy", "picture-missing", "no such file"),
    "not a map": (UNIT, b"no picture", "picture-unreadable", "not a picture"),
    "another type": (UNIT, 3.5, "picture-type", "float"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_refused(name: str) -> None:
    field, source, code, said = BROKEN[name]
    with pytest.raises(InputError, match=said) as caught:
        field.read(source, "depth")
    assert caught.value.code == f"input.{code}"


def test_a_turned_file_of_components_is_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(np.zeros((2, 3, 3), np.uint8)), exif=exif)
    with pytest.raises(InputError, match="orientation"):
        NORMALS.read(data)
    assert UNIT.read(saved(Image.fromarray(np.zeros((2, 3), np.uint8)), exif=exif)).shape == (1, 3, 2)


@pytest.mark.parametrize(
    "bad",
    [
        {"channels": 0}, {"channels": 2.0}, {"channels": True}, {"low": 1}, {"high": float("inf")},
        {"integers": "levels"}, {"mirror": (1, 1)}, {"low": -1, "mirror": (0,)}, {"low": 0, "mirror": (-1,)},
    ],
)  # fmt: skip
def test_declarations_that_contradict_themselves(bad: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="ValueMap") as caught:
        ValueMap(**bad)
    assert caught.value.code == "spec.value-map"


def test_what_a_mirror_does_is_known_or_not() -> None:
    assert UNIT.signs == (1,) and NORMALS.signs == (-1, 1, 1)
    assert ValueMap(low=-1).signs is None and ValueMap(channels=2).signs is None
    assert ValueMap(low=-1, mirror=(1,)).signs == (1,)
