"""Cases of the bad-input table: hostile and damaged checkpoints, and their yaml."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bad_files as bad
import numpy as np
import torch
from cases_calls import Case, Env, case
from ldmkit_checkpoints.compvis.yaml_config import read_yaml
from ldmkit_checkpoints.torchfile.state_dict import open_state_dict

import ldmkit


def pickled(name: str, code: str, *words: str, content: Any = None, data: bytes | None = None) -> Case:
    """A hostile .ckpt. Nothing in it may run: a call would leave a file behind."""

    def act(e: Env) -> Any:
        path = bad.ckpt(e.tmp / "evil.ckpt", content, data)
        try:
            return ldmkit.load(path)
        finally:
            assert [p.name for p in e.tmp.iterdir()] == ["evil.ckpt"], "the pickle ran something"

    return Case(name, code, words, act)


def damaged(name: str, code: str | tuple[str, ...], *words: str, damage: Callable[[Path], Any]) -> Case:
    """A good .ckpt, damaged."""

    def act(e: Env) -> Any:
        path = e.tmp / "model.ckpt"
        torch.save({"state_dict": {"a": torch.arange(6.0), "b": torch.ones(2, 3)}, "epoch": 3}, path)
        assert list(open_state_dict(path)[0]) == ["a", "b"]
        damage(path)
        return open_state_dict(path)

    return Case(name, code, words, act)


def _calls(function: Any, *arguments: Any) -> dict[str, Any]:
    return {"state_dict": {"a": bad.Calls(function, *arguments)}}


PICKLES = [
    pickled("pickle of os.system", "source.pickle-global", "system", "tensors",
            content=_calls(os.system, "touch evil")),
    pickled("pickle of eval", "source.pickle-global", "eval", content=_calls(eval, "1")),
    pickled("pickle of open", "source.pickle-global", "open", content=_calls(open, "evil", "w")),
    pickled("pickle of torch.load", "source.pickle-global", "torch", content=_calls(torch.load, "x")),
    pickled("pickle of getattr", "source.pickle-global", "getattr", content=_calls(getattr, "a", "upper")),
    pickled("pickle of a module", "source.pickle-global", "torch.nn", content={"model": torch.nn.Linear(1, 1)}),
    pickled("pickle of an array", "source.pickle-global", "numpy", content={"a": np.zeros(3)}),
    pickled("pickle of a path", "source.pickle-global", "pathlib", content={"a": Path("/")}),
    pickled("pickle of a lambda's state", "source.pickle-global", "functools",
            content={"a": __import__("functools").partial(print, "x")}),
    pickled("pickle protocol 5 global", "source.pickle-global", "posix",
            data=pickle.dumps(_calls(os.system, "true"), protocol=5)),
    pickled("pickle of numbers only", "source.no-tensors", content={"state_dict": {"a": 1}}),
    pickled("pickle of a list", "source.no-tensors", "list", content=[1, 2]),
    pickled("pickle that never ends", "source.pickle-invalid", data=b"\x80\x02}q\x00"),
    pickled("pickle of garbage", "source.pickle-invalid", data=b"\xff" * 30),
    pickled("pickle that takes too much", "source.pickle-invalid", "stack", data=b"\x80\x02a."),
    damaged("ckpt truncated", ("source.truncated", "source.torch-invalid"),
            damage=lambda p: p.write_bytes(p.read_bytes()[:300])),
    damaged("ckpt empty", "source.truncated", "0 bytes", damage=lambda p: p.write_bytes(b"")),
    damaged("ckpt of text", "source.torch-invalid", "zip", damage=lambda p: p.write_bytes(b"hello world")),
    damaged("ckpt gone", "source.not-found", damage=Path.unlink),
    damaged("ckpt of the old format", "source.legacy-format", "1.6",
            damage=lambda p: torch.save({"a": torch.ones(1)}, p, _use_new_zipfile_serialization=False)),
    damaged("ckpt with a storage cut short", "source.storage-range", "'0'", damage=lambda p: _cut_storage(p)),
    damaged("ckpt zip without a pickle", "source.torch-invalid", "data.pkl",
            damage=lambda p: zipfile.ZipFile(p, "w").close() or zipfile.ZipFile(p, "w").writestr("a", "b")),
    case("load of a damaged ckpt", ("source.truncated", "source.torch-invalid"), "m.ckpt",
         act=lambda e: ldmkit.load(bad.written(e.tmp / "m.ckpt", b"PK\x03\x04" + b"\0" * 50))),
]  # fmt: skip


def _cut_storage(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data[:4] if name.endswith("data/0") else data)


def yaml(name: str, code: str, *words: str, text: str | bytes) -> Case:
    """An original config."""
    data = text.encode() if isinstance(text, str) else text
    return Case(name, code, words, lambda e: read_yaml(bad.written(e.tmp / "c.yaml", data)))


LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))

YAML = [
    yaml("yaml tag of Python", "source.yaml-tag", "line 1", text="a: !!python/object/apply:os.system [true]"),
    yaml("yaml tag of its own", "source.yaml-tag", "!thing", text="a: !thing {}"),
    yaml("yaml key twice", "source.duplicate-key", "'a'", "line 2", text="a: 1\na: 2"),
    yaml("yaml merge key", "source.yaml-invalid", text="a: &a {b: 1}\nc:\n  <<: *a"),
    yaml("yaml aliases without end", "source.yaml-aliases", "200", text=LAUGHS + "z: [" + "*i, " * 300 + "]"),
    yaml("yaml within itself", "source.yaml-invalid", "recursive", text="a: &a [*a]"),
    yaml("yaml broken", "source.yaml-invalid", "not valid", text="a: [1, 2"),
    yaml("yaml a list", "source.yaml-invalid", "list", text="- 1"),
    yaml("yaml empty", "source.yaml-invalid", "NoneType", text=""),
    yaml("yaml binary", "source.yaml-invalid", text=b"\xff\xfe\x00\x01"),
    yaml("yaml huge width", "source.huge-dimension", "model_channels", "up to", text="a: {model_channels: 1000000000}"),
    yaml("yaml huge number of levels", "source.huge-dimension", "list of",
         text="channel_mult: [" + "1, " * 80 + "1]"),
    yaml("yaml huge integer", "source.huge-dimension", text="a: 99999999999999999999"),
    yaml("yaml NaN", "source.yaml-invalid", "finite", text="a: .nan"),
    yaml("yaml infinite", "source.yaml-invalid", "finite", text="a: .inf"),
    yaml("yaml of two megabytes", "source.too-large", text="a: 1\n" + "#" * 2**21),
    yaml("yaml deep", "source.yaml-invalid", text="a: " + "[" * 3000),
    case("yaml missing", "source.not-found", "c.yaml", act=lambda e: read_yaml(e.tmp / "c.yaml")),
    case("yaml of a hostile config at load", "source.yaml-tag", "c.yaml", act=lambda e: ldmkit.load(
        _checkpoint(e.tmp), config=bad.written(e.tmp / "c.yaml", b"a: !!python/name:os.system"))),
]  # fmt: skip


def _checkpoint(folder: Path) -> Path:
    torch.save({"state_dict": {"model.diffusion_model.x": torch.ones(1)}}, folder / "m.ckpt")
    return folder / "m.ckpt"


CHECKPOINTS = [*PICKLES, *YAML]
