"""Pictures that exist stay as they are: the next free number, or what was asked to be replaced; folders tried first."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_drawing.sheets import Sheet

import ldmkit
from ldmkit.cli import main
from ldmkit.errors import InputError
from ldmkit.files.json import check_target, replacing, write_new
from ldmkit.models.saving import check_folder
from ldmkit.run.output import Output

UNWRITABLE = Path("/proc/self")  # where not even root makes a file


def pictures(number: int) -> Output:
    return Output(torch.zeros(number, 3, 8, 8), torch.zeros(number, 1, 1, 1), lambda: ({},) * number)


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_one_picture_takes_the_next_free_number(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"mine")
    (tmp_path / "a-2.png").write_bytes(b"mine too")
    assert names(pictures(1).save(tmp_path / "a.png")) == ["a-1.png"]
    assert names(pictures(1).save(tmp_path / "a.png")) == ["a-3.png"]
    assert (tmp_path / "a.png").read_bytes() == b"mine" and (tmp_path / "a-2.png").read_bytes() == b"mine too"


def test_several_pictures_are_numbered_past_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a-1.png").write_bytes(b"mine")
    assert names(pictures(3).save(tmp_path / "a.png")) == ["a-0.png", "a-2.png", "a-3.png"]
    assert names(pictures(2).save(tmp_path / "a.png")) == ["a-4.png", "a-5.png"]
    assert (tmp_path / "a-1.png").read_bytes() == b"mine"


def test_overwrite_replaces_what_has_the_names(tmp_path: Path) -> None:
    for name in ("a.png", "a-0.png"):
        (tmp_path / name).write_bytes(b"old")
    assert names(pictures(1).save(tmp_path / "a.png", overwrite=True)) == ["a.png"]
    assert names(pictures(2).save(tmp_path / "a.png", overwrite=True)) == ["a-0.png", "a-1.png"]
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("a.png", "a-0.png"))


def test_a_dangling_link_counts_as_taken(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "elsewhere.png")
    assert names(pictures(1).save(tmp_path / "a.png")) == ["a-1.png"]
    assert not (tmp_path / "elsewhere.png").exists()


@pytest.mark.parametrize("links", [True, False])
def test_writers_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)

    def one(number: int) -> Path:
        return write_new(tmp_path / "a.txt", lambda path: path.write_text(str(number)))

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(one, range(40)))
    assert len(set(paths)) == 40
    assert [path.read_text() for path in paths] == [str(i) for i in range(40)]
    assert len(list(tmp_path.iterdir())) == 40  # and no temporary file stays


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        path.write_text("half", encoding="utf-8")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_new(tmp_path / "a.txt", broken)
    assert not list(tmp_path.iterdir())


def test_what_a_program_keeps_up_to_date_is_still_replaced(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with replacing(tmp_path / "state.json") as temporary:
            temporary.write_text(text)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["two"]


def test_sheets_too(tmp_path: Path) -> None:
    sheet = Sheet("title").row(torch.zeros(3, 8, 8))
    saved = [
        sheet.save(tmp_path / "s.png"),
        sheet.save(tmp_path / "s.png"),
        sheet.save(tmp_path / "s.png", overwrite=True),
    ]
    assert names(saved) == ["s.png", "s-1.png", "s.png"]


def test_the_commands_print_what_they_wrote(
    class_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.png"
    draw = ["sample", str(class_folder), "--label", "3", "--steps", "2", "--out", str(out)]
    encode = ["encode", str(class_folder), str(out), "--out", str(tmp_path / "l.safetensors")]
    decode = ["decode", str(class_folder), str(tmp_path / "l.safetensors"), "--out", str(out)]
    replay = ["replay", str(out), "--model", str(class_folder), "--out", str(out)]
    for command, wanted in [
        (draw, "a.png"), (draw, "a-1.png"), ([*draw, "--overwrite"], "a.png"), (replay, "a-2.png"),
        (encode, "l.safetensors"), (encode, "l-1.safetensors"), (decode, "a-3.png"),
    ]:  # fmt: skip
        assert main(command) == 0
        printed = capsys.readouterr().out
        assert str(tmp_path / wanted) in printed and (tmp_path / wanted).stat().st_size > 0, (command, printed)


@pytest.mark.skipif(not UNWRITABLE.is_dir(), reason="there is no /proc")
def test_a_folder_that_takes_no_file_is_told_before_anything_is_drawn(
    monkeypatch: pytest.MonkeyPatch, class_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for check, name in ((check_target, "a.png"), (check_folder, "model")):
        with pytest.raises(InputError) as caught:
            check(UNWRITABLE / name)  # type: ignore[operator]
        assert caught.value.code == "input.not-writable"

    def loaded(*_: Any, **__: Any) -> Any:
        raise AssertionError("the model was loaded first")

    monkeypatch.setattr(ldmkit.loading, "load", loaded)
    monkeypatch.setattr(ldmkit.loading, "load_codec", loaded)
    monkeypatch.setattr(ldmkit.loading, "open_source", loaded)
    model, out = str(class_folder), str(UNWRITABLE / "a.png")
    for command in (
        *(["sample", model, "--label", "3"], ["demo"], ["encode", model, __file__], ["decode", model, __file__]),
        *(["eval", "miniworld", model], ["import", model], ["export", model], ["replay", __file__]),
    ):
        assert main([*command, "--out", out]) == 2, command
        assert "not-writable" in capsys.readouterr().err, command
    assert main(["compare", "--text", "a", "--out", str(UNWRITABLE / "a.html")]) == 2
    assert "not-writable" in capsys.readouterr().err
