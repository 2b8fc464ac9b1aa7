"""Paths that lead nowhere, or to what is no file, wherever a path is taken: our error, at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_parts

import ldmkit
from ldmkit.files.pictures import read_label_map, read_mask, read_picture
from ldmkit.models.reading import open_source
from ldmkit.run.recipe import read_recipe


class Odd:
    """Says that it is a path, and gives something else."""

    def __init__(self, given: Any) -> None:
        self.given = given

    def __fspath__(self) -> Any:
        return self.given


PATHS: dict[str, Callable[[Path], Any]] = {
    "None": lambda t: None, "number": lambda t: 3, "descriptor": lambda t: 0, "True": lambda t: True,
    "bytes": lambda t: b"a", "NUL": lambda t: "a\0b", "NUL path": lambda t: Path("a\0b"),
    "fspath of bytes": lambda t: Odd(b"a"), "fspath of a number": lambda t: Odd(5),
    "FIFO": lambda t: t / "fifo", "endless": lambda t: "/dev/zero", "link to the endless": lambda t: t / "zero",
    "nothing": lambda t: "/dev/null", "broken link": lambda t: t / "broken", "link to itself": lambda t: t / "loop",
    "long": lambda t: "x" * 5000, "long folders": lambda t: "/".join(["y" * 200] * 50),
    "below a file": lambda t: t / "empty" / "x", "nobody's home": lambda t: "~nobody-of-that-name/x",
    "empty file": lambda t: t / "empty", "address": lambda t: "http://localhost/a.png",
    "gone": lambda t: t / "no" / "a",
}  # fmt: skip

READERS: dict[str, Callable[[Any], Any]] = {
    "load": ldmkit.load, "load_codec": ldmkit.load_codec, "load_adapter": ldmkit.load_adapter,
    "load_classifier": ldmkit.load_classifier, "open_source": open_source, "read_recipe": read_recipe,
    "read_picture": read_picture, "read_mask": read_mask, "read_label_map": read_label_map,
    "folder": lambda path: ldmkit.get("data", "folder")(folder=path).open(Path.cwd()),
    "classes": lambda path: ldmkit.get("data", "classes")(folder=path).open(Path.cwd()),
    "shards": lambda path: ldmkit.get("data", "shards")(shards=path).open(Path.cwd()),
}  # fmt: skip


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a FIFO, links and an empty file."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    for name, target in (("zero", "/dev/zero"), ("broken", "nothing"), ("loop", "loop")):
        Path(name).symlink_to(target)
    Path("empty").touch()
    return tmp_path


@pytest.mark.parametrize("reader", READERS)
def test_reading(places: Path, reader: str) -> None:
    for name, path in PATHS.items():
        with pytest.raises(ldmkit.LdmkitError) as caught:
            READERS[reader](path(places))
        assert len(str(caught.value)) < 3000, name


@pytest.mark.parametrize("name", PATHS)
def test_writing(places: Path, class_pipe: ldmkit.Pipeline, name: str) -> None:
    before = sorted(places.rglob("*"))
    with pytest.raises(ldmkit.LdmkitError):
        class_pipe.save(PATHS[name](places))
    with pytest.raises(ldmkit.LdmkitError):
        class_pipe({"label": 1}, steps=1).save(PATHS[name](places))
    assert sorted(places.rglob("*")) == before


@pytest.mark.parametrize("pattern", ["", ".", "/", "no-*.tar"])
def test_patterns_that_match_nothing(places: Path, pattern: str) -> None:
    with pytest.raises(ldmkit.InputError, match="no file matches"):
        ldmkit.get("data", "shards")(shards=pattern).open(places)


def test_vocabularies_are_read_from_text_and_paths(places: Path) -> None:
    config = {"vocab_size": 30, "dim": 8, "layers": 1, "heads": 1, "head_dim": 8, "max_length": 8}
    text = tiny_parts.part("conditioner", "ldm-text", {**config, "start": 2, "end": 3, "pad": 0})
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]
    Path("vocab.txt").write_text("\n".join(words), encoding="utf-8")
    text.load_assets(".")
    assert text.parse("a b", "text")
    for wrong in (None, 3, b"a", "a\0b", ""):
        with pytest.raises(ldmkit.InputError, match=r"path-type|no-path"):
            text.load_assets(wrong)


def test_the_home_folder(places: Path, class_pipe: ldmkit.Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(places))
    assert class_pipe.save("~/model") == places / "model"
    assert ldmkit.load("~/model").spec.hash == class_pipe.spec.hash
