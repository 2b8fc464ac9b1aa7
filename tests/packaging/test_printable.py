"""Names and texts of other people on the terminal: nothing in them steers it, and JSON says the same as before."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

import ldmkit.cli
from ldmkit.errors import InputError, shown
from ldmkit.printable import Escaping, escaped_output, print_rich, printable, printable_json, printable_text

STEERING = [
    *("\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b]52;c;AAAA\x07", "a\x00b", "\x7f", "\x9b2J", "\x85", "a\bb"),
    *(
        "\u202egnp.exe",
        "\u2066x\u2069",
        "zero\u200bwidth",
        "soft\xadhyphen",
        "\u2028",
        "\u2029",
        "\ufeff",
        "\U000e0041",
    ),
    "\ud800",
]
BREAKS = ["line\nerror [forged] all is well", "over\rwritten", "a\x0bb", "a\x0cb"]


def steers(text: str, keep: str = "\n\t\r") -> list[str]:
    """By the category of every character, independently of how it was written."""
    return [c for c in text if c not in keep and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs")]


@pytest.mark.parametrize("text", STEERING + BREAKS)
def test_a_text_within_a_line(text: str) -> None:
    assert steers(printable(text), keep="") == []
    assert steers(printable_text(text)) == []
    written = json.dumps({text: [text, "é", "日本 語"]}, ensure_ascii=False, indent=2)
    assert steers(printable_json(written), keep="\n") == []
    assert json.loads(printable_json(written)) == json.loads(written)
    error = InputError("x", f"no {text}", where=f"folder/{text}", fits=text)
    for told in (str(error), shown(text), shown([text])):
        assert steers(told, keep="") == [] and len(told.splitlines()) == 1
    assert error.what == f"no {text}", "programs get what was given"


def test_every_character() -> None:
    """All of Unicode: exactly the steering ones are written as escapes."""
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        escaped = unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs")
        assert (printable(character) != character) == escaped
        assert printable(character).isascii() or not escaped


@pytest.mark.parametrize("text", ["", "plain", "ünïcödé", "日本語 テスト", "no\xa0break", "emoji 🙂", "back\\slash"])
def test_what_is_not_steering_stays(text: str) -> None:
    assert printable(text) == printable_text(text) == text and str(InputError("x", text)).endswith(text)


def test_a_stream_is_still_a_stream(capsys: pytest.CaptureFixture[str]) -> None:
    from tqdm import tqdm

    plain = io.StringIO()
    stream = Escaping(plain)
    assert stream.write("a\x1b[2J\n") == 6
    stream.writelines(["b\u202e\n"])
    for _ in tqdm(range(3), file=stream, desc="bar"):  # type: ignore[type-var]
        pass
    assert plain.getvalue().startswith("a\\x1b[2J\nb\\u202e\n\r") and "bar: 100%" in plain.getvalue()
    assert not stream.isatty() and steers(plain.getvalue()) == []
    before = sys.stdout, sys.stderr
    with escaped_output(), escaped_output():
        print("\x1b[31m")
        print("\x00", file=sys.stderr)
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("\\x1b[31m\n", "\\x00\n")


def test_two_bars_find_their_rows() -> None:
    from tqdm import tqdm

    plain = io.StringIO()
    with tqdm(total=1, file=Escaping(plain), position=1, desc="lower") as bar:  # type: ignore[type-var]
        bar.update()
    assert "\n\r" in plain.getvalue() and "\x1b[A" in plain.getvalue() and "\\x1b" not in plain.getvalue()


def test_colours_of_our_own_tables_reach_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with escaped_output():
        print_rich("[bold red]FAIL[/]")
    assert "\x1b[1;31mFAIL\x1b[0m" in terminal.getvalue()


FORGED = "\x1b[2K\x1b]0;x\x07\u202e\nerror [forged]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", f"no{FORGED}"],
        ["sample", "miniworld", f"--{FORGED}", "x"],
        ["sample", "miniworld", "--sampler", FORGED],
        ["sample", "miniworld", "--size", FORGED],
        ["sample", "--steps", FORGED],
        [FORGED],
        ["plugins", "show", FORGED],
        ["plugins", "doctor", FORGED],
        ["plugins", "--kind", FORGED],
        ["replay", f"{FORGED}.png"],
        ["check", FORGED],
        ["convert", FORGED, "out"],
        ["train", FORGED],
        ["train", "recipe.yaml", "--set", FORGED],
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_arguments(
    arguments: list[str], as_json: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text("stage: denoiser\n")
    assert ldmkit.cli.main([*arguments, *(["--json"] if as_json else [])]) != 0
    said = capsys.readouterr()
    assert steers(said.out + said.err) == []
    assert not any(line.startswith("error [forged]") for line in (said.out + said.err).splitlines())


@pytest.mark.skipif(not sys.getfilesystemencoding().startswith("utf"), reason="such names cannot be made here")
def test_files_of_such_names_on_a_real_terminal(tmp_path: Path) -> None:
    """What a terminal gets of a run: bars and lines, and nothing of a name's own."""
    folder = tmp_path / "a\x1b[31m\u202e"
    folder.mkdir()
    (folder / "bad\n\x1b]0;x\x07.png").write_bytes(b"\x89PNG")
    Image.new("RGB", (8, 8)).save(folder / "no recipe\x1b[2J.png")
    ours, theirs = pty.openpty()
    for name in ("bad\n\x1b]0;x\x07.png", "no recipe\x1b[2J.png", "none\x9b.png"):
        command = [sys.executable, "-m", "ldmkit", "replay", str(folder / name)]
        assert subprocess.run(command, stdout=theirs, stderr=theirs, timeout=300).returncode != 0
        told = os.read(ours, 65536).decode()
        assert "error" in told and steers(told) == []


def test_json_on_a_stream_of_another_encoding(tmp_path: Path) -> None:
    """It stays JSON, and says the same."""
    command = [sys.executable, "-m", "ldmkit", "check", "no-such-ä-模.safetensors", "--json"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1:backslashreplace"}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=300)
    assert done.returncode != 0 and done.stdout.isascii()
    assert "no-such-ä-模.safetensors" in str(json.loads(done.stdout))
