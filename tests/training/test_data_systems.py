"""Folders and files that systems, storage devices and tools leave among pictures are no classes and no samples."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

import ldmkit
from ldmkit.cli import main

SYSTEMS = (
    *("@eaDir", "$RECYCLE.BIN", "__MACOSX", "lost+found", ".AppleDouble", "#recycle", "System Volume Information"),
    *("__pycache__", ".ipynb_checkpoints", "@Recycle", "#snapshot"),
)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (200, 30, 30)).save(path)


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        picture(tmp_path / "animals" / name / "1.png")
    return tmp_path


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("where", ["", "cat/"])
def test_they_are_no_classes(animals: Path, name: str, where: str) -> None:
    data = ldmkit.get("data", "classes")(folder="animals", numbers=True)
    wanted = data.open(animals)
    picture(animals / "animals" / f"{where}{name}" / "1.png" / "SYNOPHOTO_THUMB_S.png")
    (animals / "animals" / "cat" / "Thumbs.db").write_bytes(b"")
    found = data.open(animals)
    assert [found.known(i) for i in range(len(found))] == [{"label": 0}, {"label": 1}]
    assert found.numbering == wanted.numbering == {"label": ("cat", "dog")}
    (said,) = set(found.notes) - set(wanted.notes)
    assert said.startswith("1 ") and ("hidden" in said or name in said)


@pytest.mark.parametrize("name", SYSTEMS)
def test_they_are_no_samples(animals: Path, name: str) -> None:
    picture(animals / "animals" / name / "2.png")
    found = ldmkit.get("data", "folder")(folder="animals").open(animals)
    assert len(found) == 2 and any(note.startswith("1 ") for note in found.notes)


@pytest.mark.parametrize("name", SYSTEMS)
def test_nor_in_archives(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "1.png")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for path in ("1.png", f"{name}/2.png"):
            entry = tarfile.TarInfo(path)
            content = (tmp_path / "1.png").read_bytes()
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    found = ldmkit.get("data", "shards")(shards="a.tar").open(tmp_path)
    assert len(found) == 1 and any("hidden" in note for note in found.notes)


def test_an_empty_class_is_an_error_and_has_its_number(animals: Path) -> None:
    """Another machine, where it has pictures, numbers the others the same."""
    (animals / "animals" / "bee").mkdir()
    data = ldmkit.get("data", "classes")
    with pytest.raises(ldmkit.InputError, match="no pictures: 'bee'"):
        data(folder="animals", numbers=True).open(animals)
    found = data(folder="animals", numbers=True, missing="allow").open(animals)
    assert found.numbering == {"label": ("bee", "cat", "dog")} and "'bee'" in found.notes[0]
    assert [found.known(i) for i in range(2)] == [{"label": 1}, {"label": 2}]
    (animals / "animals" / "bee" / "1.jxl").write_bytes(b"not read")
    with pytest.raises(ldmkit.InputError, match="no pictures: 'bee'"):
        data(folder="animals").open(animals)


def test_names_that_differ_in_capitals_or_spaces(animals: Path) -> None:
    data = ldmkit.get("data", "classes")
    assert not data(folder="animals").open(animals).notes
    for name in ("Dog", "cat "):
        picture(animals / "animals" / name / "1.png")
    notes = data(folder="animals").open(animals).notes
    assert [note for note in notes if "alone" in note] == [
        "the classes 'cat' and 'cat ' differ in capitals or spaces alone",
        "the classes 'Dog' and 'dog' differ in capitals or spaces alone",
    ]


def test_a_link_to_a_class_is_none(animals: Path) -> None:
    (animals / "animals" / "latest").symlink_to(animals / "animals" / "cat")
    assert ldmkit.get("data", "classes")(folder="animals", numbers=True).open(animals).numbering["label"] == (
        "cat",
        "dog",
    )


def test_the_plan_says_which_class_each_number_is(
    animals: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(animals)
    unet = {"channels": 3, "widths": [8], "blocks": 1, "norm_groups": 4, "attention": ["cross"], "heads": 2}
    train = {"type": "classes", "config": {"folder": "animals", "numbers": True}}
    recipe = {
        "stage": "denoiser",
        "out": "run",
        "steps": 2,
        "data": {"train": train, "batch": 2, "size": [16, 16]},
        "model": {
            "codec": {"type": "identity"},
            "denoiser": {"type": "unet", "config": {**unet, "context_dim": 8}},
            "conditioners": {"label": {"type": "label", "config": {"n_classes": 2, "dim": 8}}},
            "process": {"type": "discrete"},
        },
    }
    Path("recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    assert main(["train", "recipe.yaml", "--dry-run"]) == 0
    assert "label: numbered 0 'cat', 1 'dog'" in capsys.readouterr().out
