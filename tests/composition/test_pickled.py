"""Torch files: what is read lazily and right, and what is refused. No file here is ever given to `torch.load`."""

from __future__ import annotations

import collections
import functools
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counting import calls_at_most
from ldmkit_checkpoints.torchfile.pickle_reader import read_pickle
from ldmkit_checkpoints.torchfile.state_dict import open_pickled, open_state_dict

import ldmkit
from ldmkit.models.weights import LazyTensor

CANARY: list[str] = []

LIMIT = 500_000
"""Of calls: these files take 70,000 at most, and a naive reader of theirs 2^90."""


def touch(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Notes that a file made the reader run something."""
    CANARY.append("ran")
    return {}


class Callback:
    """Stands for a training framework's class as the key of a checkpoint's entry."""


class Evil:
    def __init__(self, function: Callable[..., Any], *args: Any):
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


class WithState:
    def __init__(self) -> None:
        self.state = {"a": 1}


def saved(tree: Any, folder: Path) -> Path:
    path = folder / "file.ckpt"
    torch.save(tree, path)
    return path


def refused(path: Path, code: str, *words: str) -> None:
    before = len(CANARY)
    with pytest.raises(ldmkit.SourceError) as caught:
        open_state_dict(path)
    assert caught.value.code == f"source.{code}"
    for word in words:
        assert word in str(caught.value)
    assert len(CANARY) == before, "the file ran something"


def views() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0).view(4, 6)
    return {
        "base": base,
        "transposed": base.t(),
        "window": base[1:3, 2:5],
        "column": base[:, 3],
        "strided": base.view(-1)[1::5],
        "expanded": torch.ones(1).expand(5),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "half": torch.arange(5).half(),
        "bfloat": torch.arange(5).bfloat16(),
        "double": torch.arange(5).double(),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
    }


@pytest.mark.parametrize("copy", [True, False])
def test_views_of_shared_storages_are_right(tmp_path: Path, copy: bool) -> None:
    want = views()
    found, _ = open_state_dict(saved({"state_dict": collections.OrderedDict(want)}, tmp_path))
    assert found.keys() == want.keys()
    for key, tensor in want.items():
        assert found[key].shape == tuple(tensor.shape)
        got = found[key].read(copy)
        assert got.dtype == tensor.dtype == found[key].dtype
        assert torch.equal(got, tensor.detach())


def test_a_mapped_tensor_is_not_written_back(tmp_path: Path) -> None:
    path = saved(views(), tmp_path)
    before = path.read_bytes()
    found, _ = open_state_dict(path)
    found["base"].read(False).zero_()
    assert path.read_bytes() == before


def test_plain_containers_of_a_training_checkpoint(tmp_path: Path) -> None:
    extras = {
        "epoch": 3,
        "global_step": 470_000,
        "pytorch-lightning_version": "1.4.2",
        "lr_schedulers": [{"last_epoch": 1, "base_lrs": [1e-4], "none": None, "flag": True}],
        "optimizer_states": [{"state": {0: {"step": 5, "exp_avg": torch.ones(2)}}, "groups": [{"betas": (0.9, 0.99)}]}],
        "set": {1, 2},
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "raw": b"bytes",
        "large": 2**70,
    }  # fmt: skip
    found, read = open_state_dict(saved({"state_dict": {"w": torch.ones(2)}, **extras}, tmp_path))
    assert list(found) == ["w"]
    moment = read["optimizer_states"][0]["state"][0].pop("exp_avg")
    assert isinstance(moment, LazyTensor)
    extras["optimizer_states"][0]["state"][0].pop("exp_avg")
    extras["size"] = (1, 2)
    assert read == extras


def test_the_metadata_of_a_module_is_left_out(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 3)
    found, _ = open_state_dict(saved(layer.state_dict(), tmp_path))
    assert torch.equal(found["weight"].read(True), layer.weight)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Evil(os.system, "true"), "system"),
        (lambda: Evil(touch), "touch"),
        (lambda: Evil(eval, "1"), "builtins.eval"),
        (lambda: Evil(exec, "1"), "builtins.exec"),
        (lambda: Evil(getattr, "a", "upper"), "builtins.getattr"),
        (lambda: Evil(__import__, "os"), "builtins.__import__"),
        (lambda: Evil(functools.partial, touch), "functools.partial"),
        (lambda: Evil(torch.load, "x"), "torch.serialization.load"),
        (lambda: Evil(torch.hub.load, "x", "y"), "torch.hub"),
        (lambda: Evil(pickle.loads, b""), "loads"),
        (lambda: np.zeros(3), "numpy"),
        (lambda: np.float64(1.0), "numpy"),
        (lambda: collections.Counter("a"), "collections.Counter"),
        (lambda: collections.defaultdict(list), "collections.defaultdict"),
        (lambda: Path("x"), "pathlib"),
        (lambda: WithState(), "WithState"),
        (lambda: Callback, "Callback"),
        (lambda: {Callback: {"best": 1}}, "Callback"),
        (lambda: [{"deep": ({"deeper": Evil(touch)},)}], "touch"),
        (lambda: torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (lambda: 1j, "builtins.complex"),
        (lambda: range(3), "builtins.xrange"),
    ],
)
@pytest.mark.parametrize("place", ["value", "beside"])
def test_anything_but_tensors_and_containers_is_refused(tmp_path: Path, make: Any, word: str, place: str) -> None:
    tree = {"state_dict": {"w": torch.ones(1), "x": make()}} if place == "value" else {"state_dict": {}, "x": make()}
    refused(saved(tree, tmp_path), "pickle-global", word, "state_dict")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "pickle-global"),
        (b"(X\x01\x00\x00\x00aios\nsystem\n.", "pickle-global"),
        (b"(cos\nsystem\nS'true'\no.", "pickle-global"),
        (b"\x80\x02\x82\x01.", "pickle-global"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "pickle-global"),
        (b"\x80\x02c__builtin__\ngetattr\nq\x00.", "pickle-global"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01tR.", "pickle-invalid"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.", "pickle-invalid"),
        (b"\x80\x02ccollections\nOrderedDict\n}b.", "pickle-invalid"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "pickle-invalid"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "pickle-invalid"),
        (b"\x80\x02X\x01\x00\x00\x00a)R.", "pickle-invalid"),
        (b"\x80\x02]r\xff\xff\xff\x7f0h\x05.", "pickle-opcode"),
        (b"\x80\x02h\x05.", "pickle-invalid"),
        (b"\x80\x02}(]K\x01u.", "pickle-invalid"),
        (b"\x80\x02}(K\x01u.", "pickle-invalid"),
        (b"\x80\x02]K\x01K\x02s.", "pickle-invalid"),
        (b"\x80\x02K\x01K\x02.", "pickle-invalid"),
        (b"\x80\x02t.", "pickle-invalid"),
        (b"\x80\x02R.", "pickle-invalid"),
        (b"\x80\x02.", "pickle-invalid"),
        (b"\x80\x02}", "pickle-invalid"),
        (b"", "pickle-invalid"),
        (b"\x80\x02X\xff\xff\xff\x7fa.", "pickle-invalid"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "pickle-invalid"),
        (b"P1\n.", "pickle-opcode"),
        (b"\x80\x02}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02u.", "duplicate-key"),
    ],
)
def test_crafted_pickles(data: bytes, code: str) -> None:
    with pytest.raises(ldmkit.SourceError) as caught:
        read_pickle(data, "here")
    assert caught.value.code == f"source.{code}"
    assert "here" in str(caught.value)


def archive(path: Path, pickled: bytes, entries: dict[str, bytes], compress: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compress) as target:
        target.writestr("file/data.pkl", pickled)
        for name, data in entries.items():
            target.writestr(f"file/{name}", data)
    return path


def tensor_pickle(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, numel: int = 4) -> bytes:
    """{'w': a view of float storage '0'}, written by hand."""

    def number(value: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", value)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + number(numel) + b"tQ"
    )
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(size) + numbers(stride)
    return b"\x80\x02}X\x01\x00\x00\x00w" + view + b"\x89NtRs."


def test_a_tensor_written_by_hand_is_read(tmp_path: Path) -> None:
    data = np.arange(4, dtype=np.float32).tobytes()
    path = archive(tmp_path / "a.ckpt", tensor_pickle((2, 2), (1, 2)), {"data/0": data})
    for copy in (True, False):
        assert open_state_dict(path)[0]["w"].read(copy).tolist() == [[0.0, 2.0], [1.0, 3.0]]


@pytest.mark.parametrize(
    ("view", "entries", "code"),
    [
        (((5,), (1,)), {"data/0": bytes(16)}, "storage-range"),
        (((2,), (4,)), {"data/0": bytes(16)}, "storage-range"),
        (((2, 2), (2, 2)), {"data/0": bytes(16)}, "storage-range"),
        (((1,), (1,), 4), {"data/0": bytes(16)}, "storage-range"),
        (((2**40,), (1,)), {"data/0": bytes(16)}, "storage-range"),
        (((4,), (1,)), {"data/0": bytes(12)}, "storage-range"),
        (((4,), (1,), 0, 2**40), {"data/0": bytes(16)}, "storage-range"),
        (((4,), (-1,)), {"data/0": bytes(16)}, "pickle-invalid"),
        (((-4,), (1,)), {"data/0": bytes(16)}, "pickle-invalid"),
        (((4,), (1,), -1), {"data/0": bytes(16)}, "pickle-invalid"),
        (((4,), (1, 1)), {"data/0": bytes(16)}, "pickle-invalid"),
        (((4,), (1,)), {}, "torch-invalid"),
        (((4,), (1,)), {"data/0": bytes(16), "byteorder": b"big"}, "torch-invalid"),
        (((4,), (1,)), {"data/0": bytes(16), "constants.pkl": b""}, "unsupported"),
        (((4,), (1,)), {"data/0": bytes(16), "other/data.pkl": b""}, "torch-invalid"),
    ],
)
def test_views_and_archives_that_lie(tmp_path: Path, view: Any, entries: dict[str, bytes], code: str) -> None:
    refused(archive(tmp_path / "a.ckpt", tensor_pickle(*view), entries), code)


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.ckpt", tensor_pickle((4,), (1,)), {"data/0": bytes(16)}, zipfile.ZIP_DEFLATED)
    refused(path, "torch-invalid", "compressed")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.ckpt", tensor_pickle((4,), (1,)), {"data/0": bytes(16)})
    with zipfile.ZipFile(path, "a") as target:
        target.writestr("file/data/0", bytes(16))
    refused(path, "torch-invalid", "same name")


@pytest.mark.parametrize("keep", [0, 3, 4, 100, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, keep: float) -> None:
    path = saved({"state_dict": views()}, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    refused(path, "truncated")


def test_a_file_cut_while_it_is_read(tmp_path: Path) -> None:
    path = saved({"w": torch.ones(1000)}, tmp_path)
    found, _ = open_state_dict(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ldmkit.SourceError) as caught:
        found["w"].read(True)
    assert caught.value.code == "source.truncated"


def test_a_flipped_bit_in_the_pickle(tmp_path: Path) -> None:
    path = saved({"state_dict": {"w": torch.ones(3)}}, tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(b"state_dict") + 2] ^= 1
    path.write_bytes(data)
    refused(path, "torch-invalid", "damaged")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"not a torch file at all", "torch-invalid"),
        (b"\x80\x02}q\x00.", "legacy-format"),
        (b"GIF89a" + bytes(50), "torch-invalid"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    refused(path, code)


def test_torch_s_older_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "old.ckpt"
    torch.save({"w": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    refused(path, "legacy-format", "1.6", "torch.save")
    refused(tmp_path / "absent.ckpt", "not-found")


@pytest.mark.parametrize(
    "tree", [[1, 2], {}, {"state_dict": {}}, {"a": 1}, {"state_dict": {"a": {"b": torch.ones(1)}}}, {1: torch.ones(1)}]
)
def test_files_without_a_state_dict(tmp_path: Path, tree: Any) -> None:
    refused(saved(tree, tmp_path), "no-tensors")


def test_containers_within_themselves_are_harmless(tmp_path: Path) -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    read = open_pickled(saved({"loop": loop}, tmp_path))
    assert read["loop"][1] is read["loop"]
    nested: list[Any] = []
    for _ in range(300):
        nested = [nested]
    with pytest.raises(ldmkit.SourceError) as caught:
        open_pickled(saved({"deep": nested}, tmp_path))
    assert caught.value.code == "source.pickle-invalid"


def doubling(depth: int = 100) -> tuple[Any, ...]:
    """A tuple of 2 ** depth leaves in a few hundred bytes."""
    nested: tuple[Any, ...] = ("x",)
    for _ in range(depth):
        nested = (nested, nested)
    return nested


def soon(path: Path, code: str = "", *words: str) -> None:
    """Reading ends, well or with an error: the file would keep a naive reader busy for the age of the universe."""
    with calls_at_most(LIMIT):
        if code:
            refused(path, code, *words)
        else:
            open_pickled(path)


def test_nested_tuples_do_not_multiply(tmp_path: Path) -> None:
    bomb = pickle.dumps({"a": doubling(90)}, protocol=2)
    soon(archive(tmp_path / "value.ckpt", bomb, {}))
    # a dictionary with such a key cannot be made, as its hash takes as long: the pickle is written by hand
    key = pickle.dumps(doubling(90), protocol=2)[2:-1]
    for name, body in {
        "key": b"}" + key + b"K\x01s",
        "item": b"c__builtin__\nset\n" + key + b"\x85R",
        "global": key + key + b"\x93",
    }.items():
        soon(archive(tmp_path / f"{name}.ckpt", b"\x80\x02" + body + b".", {}), "pickle-invalid")


def test_calls_do_not_multiply_what_they_are_given(tmp_path: Path) -> None:
    text = b"X" + struct.pack("<I", 100_000) + b"x" * 100_000
    start = b"\x80\x02(" + text + b"q\x00" + b"X\x06\x00\x00\x00latin1q\x01" + b"c_codecs\nencode\nq\x02"
    again = b"h\x02h\x00h\x01\x86R"
    assert read_pickle(start + again + b"t.", "file")[-1] == b"x" * 100_000
    soon(archive(tmp_path / "a.ckpt", start + again * 20_000 + b"t.", {}), "pickle-invalid", "copies its own items")
