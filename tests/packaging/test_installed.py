"""What is read from the metadata of distributions: which copy counts, which names can be used, what is reported."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from ldmkit.plugins import catalogue
from ldmkit.plugins.installed import MAX_BYTES, Entry, Problem, normal
from ldmkit.printable import printable

POINTS = "[ldmkit.samplers]\n{name} = some_module:Some\n"


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """Two site folders, the first before the second on the path."""
    folders = (tmp_path / "first", tmp_path / "second")
    for folder in reversed(folders):
        folder.mkdir()
        monkeypatch.syspath_prepend(str(folder))
    catalogue.refresh()
    yield folders
    monkeypatch.undo()
    catalogue.refresh()


def put(site: Path, name: str, version: str, points: str | bytes = "", ending: str = "dist-info") -> Path:
    folder = site / f"{name}-{version}.{ending}"
    folder.mkdir()
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nVersion: 9 of the description\n"
    (folder / ("METADATA" if ending == "dist-info" else "PKG-INFO")).write_text(head, encoding="utf-8")
    text = points or POINTS.format(name=f"part-{version}")
    (folder / "entry_points.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    importlib.invalidate_caches()
    catalogue.refresh()
    return folder


def entries(*dists: str) -> list[Entry]:
    return [entry for entry in catalogue.catalogue() if normal(entry.dist) in dists]


def problems(*dists: str) -> list[Problem]:
    return [problem for problem in catalogue.problems() if normal(problem.dist) in dists]


def test_everything_agrees_with_importlib() -> None:
    """The fast reader against the standard one, on all that is installed here."""
    for entry in catalogue.catalogue():
        dist = metadata.distribution(entry.dist)
        assert (dist.name, dist.version) == (entry.dist, entry.version)
        assert any(point.name == entry.name and point.value == entry.value for point in dist.entry_points)
    assert not catalogue.problems()


def test_the_first_copy_on_the_path_counts(sites: tuple[Path, Path]) -> None:
    put(sites[1], "some_parts", "2.0")
    put(sites[0], "some_parts", "1.0")
    assert [(e.name, e.version) for e in entries("some-parts")] == [("part-1.0", "1.0")]
    (problem,) = problems("some-parts")
    assert problem.flaw == "two-versions" and not problem.left_out
    assert problem.cause == (f"several copies are installed: 1.0 in {sites[0]} is used; also found: 2.0 in {sites[1]}")


def test_of_copies_in_one_folder_the_newest_counts(sites: tuple[Path, Path]) -> None:
    for version in ("1.9", "1.10", "1.2"):
        put(sites[0], "some_parts", version)
    assert [e.version for e in entries("some-parts")] == ["1.10"]
    assert len(problems("some-parts")) == 1


def test_a_first_copy_without_parts_hides_a_second_with_them(sites: tuple[Path, Path]) -> None:
    put(sites[1], "some_parts", "1.0")
    put(sites[0], "some_parts", "2.0", "[console_scripts]\nsome = some_module:main\n")
    assert not entries("some-parts") and [p.version for p in problems("some-parts")] == ["2.0"]


def test_a_stale_copy_is_noticed_and_an_equal_one_is_not(sites: tuple[Path, Path]) -> None:
    put(sites[1], "some_parts", "1.0")
    put(sites[0], "some_parts", "1.0", ending="egg-info")
    assert not problems("some-parts") and len(entries("some-parts")) == 1
    (sites[0] / "some_parts-1.0.egg-info" / "entry_points.txt").write_text(POINTS.format(name="older"))
    catalogue.refresh()
    assert [p.flaw for p in problems("some-parts")] == ["two-versions"]
    assert [e.name for e in entries("some-parts")] == ["older"]


def test_a_folder_that_is_on_the_path_twice(sites: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    put(sites[0], "some_parts", "1.0")
    monkeypatch.syspath_prepend(str(sites[0]))
    assert len(entries("some-parts")) == 1 and not problems("some-parts")


NAMES = {
    "two words": "blanks", "tab\there": "blanks", "a\u202eb": "U+202E", "a\u00adb": "U+00AD",
    "ｅuler": "look like others", "\u03b1lpha": "GREEK, LATIN", "a,b": "special meaning",
    "dist:name": "special meaning", "star*": "special meaning",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_that_cannot_be_used(sites: tuple[Path, Path], name: str) -> None:
    put(sites[0], "some_parts", "1.0", POINTS.format(name=name) + "good = some_module:Some\n")
    assert [e.name for e in entries("some-parts")] == ["good"]
    (problem,) = problems("some-parts")
    assert problem.flaw == "bad-name" and problem.left_out and NAMES[name] in problem.cause
    assert problem.name.isprintable()


@pytest.mark.parametrize("name", ["größe", "モデル", "размер", "dpm++2m", "x.y_z-1", "gro\u0308ße"], ids=ascii)
def test_names_that_can(sites: tuple[Path, Path], name: str) -> None:
    put(sites[0], "some_parts", "1.0", POINTS.format(name=name))
    assert not problems("some-parts") and len(entries("some-parts")) == 1
    assert catalogue.find("sampler", name).dist == "some_parts"


@pytest.mark.parametrize(
    ("points", "flaw", "words"),
    [
        (b"[ldmkit.samplers]\nx = \xff\xfe:Y\n", "unreadable", "is not UTF-8"),
        (b"[ldmkit.samplers]\nno value\n", "unreadable", "cannot be read"),
        (b"[ldmkit.smaplers]\nx = y:Z\n", "unknown-group", "'ldmkit.smaplers'"),
        (b"[ldmkit.samplers]\nx = y:Z\nx = z:Z\n", "twice", "duplicate entry point sampler 'x'"),
        (b"[ldmkit.samplers]\n" + b"".join(b"x%d = y:Z\n" % i for i in range(1001)), "oversized", "1001 parts"),
        (b"[ldmkit.samplers]\nx = y:" + b"Z" * MAX_BYTES, "oversized", "1 parts"),
    ],
    ids=["encoding", "line", "group", "twice", "parts", "bytes"],
)
def test_metadata_that_cannot_be_used(sites: tuple[Path, Path], points: bytes, flaw: str, words: str) -> None:
    put(sites[0], "some_parts", "1.0", points)
    put(sites[0], "good_parts", "1.0")
    (problem,) = problems("some-parts")
    assert problem.flaw == flaw and words in problem.cause and problem.remedy
    assert len(entries("some-parts")) == (1 if flaw == "twice" else 0) and len(entries("good-parts")) == 1


def test_extras_behind_a_value_are_left_out(sites: tuple[Path, Path]) -> None:
    put(sites[0], "some_parts", "1.0", "[ldmkit.samplers]\nx = some_module:Some [extra]\n")
    assert [e.value for e in entries("some-parts")] == ["some_module:Some"]


def test_text_for_a_terminal_steers_none() -> None:
    assert printable("a\x1b[31mb\u202ec\nd größe") == "a\\x1b[31mb\\u202ec\\nd größe"
