"""What goes says so: once for each line that uses it, with versions and what to use instead; and it goes in time."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

import ldmkit
from ldmkit.cli import main
from ldmkit.plugins import deprecation
from ldmkit.plugins.deprecation import (
    Notice,
    deprecated,
    deprecated_fields,
    deprecated_flag,
    deprecated_names,
    deprecated_parameter,
    version_of,
)

ROOT = Path(__file__).parents[2]
WHEN = {"since": "0.2", "removal": "0.4"}
Warned = pytest.WarningsRecorder


@deprecated(**WHEN, use="twice()")
def double(x: int) -> int:
    """Twice the number."""
    return 2 * x


@deprecated_parameter("factor", **WHEN, to="scale")
@deprecated_parameter("fast", **WHEN, reason="it is always fast")
def grow(x: int, *, scale: int = 1) -> int:
    """x times scale."""
    return x * scale


class Old(ldmkit.Value):
    """A value with a renamed field, and one that has no effect any more."""

    width: int = 1
    _older = deprecated_fields({"channels": "width"}, **WHEN)
    _gone = deprecated_fields({"legacy": ""}, **WHEN, reason="nothing reads it")


@deprecated(**WHEN, use="ldmkit.Value")
class Going(ldmkit.Value):
    """A value that goes."""

    size: int = 1


@deprecated(**WHEN, use="another class")
class Plain:
    """A class that goes."""

    def __init__(self, x: int):
        self.x = x

    @property
    @deprecated(**WHEN, use="x")
    def y(self) -> int:
        """The same as x."""
        return self.x


def warned(call: Callable[[], Any]) -> tuple[Any, list[str]]:
    """The result of a call, and the messages of our warnings, every one of which points at this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    assert all(w.filename == __file__ for w in caught if w.category is ldmkit.LdmkitDeprecationWarning)
    return result, [str(w.message) for w in caught if w.category is ldmkit.LdmkitDeprecationWarning]


def test_a_function() -> None:
    result, (message,) = warned(lambda: double(4))
    assert result == 8 and double.__name__ == "double" and double.__doc__
    assert message == "test_deprecation.double is deprecated since ldmkit 0.2 and goes in 0.4: use twice()"


def test_a_renamed_and_a_dropped_parameter() -> None:
    assert warned(lambda: grow(2, scale=3)) == (6, [])
    result, (message,) = warned(lambda: grow(2, factor=3))
    assert result == 6 and message.endswith("use scale=...") and "grow(factor=...)" in message
    result, (message,) = warned(lambda: grow(2, fast=True))
    assert result == 2 and message.endswith("it is always fast")
    with pytest.raises(TypeError, match="given twice"), pytest.warns(ldmkit.LdmkitDeprecationWarning):
        grow(2, scale=3, factor=3)


@pytest.mark.parametrize("to", ["elsewhere", ""])
def test_a_parameter_must_be_gone_from_the_function_itself(to: str) -> None:
    reason = "" if to else "because"
    with pytest.raises(TypeError, match="must not be one of its parameters"):
        deprecated_parameter("x" if not to else "y", **WHEN, to=to, reason=reason)(lambda x: x)


def test_fields_of_a_value() -> None:
    assert warned(lambda: Old(width=3)) == (Old(3), [])
    for make in (lambda: Old(channels=3), lambda: Old.of({"channels": 3}), lambda: Old.model_validate({"channels": 3})):
        result, messages = warned(make)
        assert result == Old(3) and messages == [
            "field 'channels' is deprecated since ldmkit 0.2 and goes in 0.4: use 'width'"
        ]
    result, (message,) = warned(lambda: Old.of({"legacy": True}))
    assert result == Old() and message.endswith("nothing reads it")
    assert "channels" not in Old.model_json_schema()["properties"] and Old(3).model_dump() == {"width": 3}
    with pytest.raises(ldmkit.SpecError, match=r"field-twice\].*'width' is given twice"):
        Old.of({"width": 1, "channels": 1})
    with pytest.raises(ldmkit.SpecError, match=r"spec.unknown-key.*widht"):
        Old.of({"widht": 1})


def test_a_value_class() -> None:
    for make in (lambda: Going(size=2), lambda: Going.of({"size": 2}), lambda: Going(2)):
        result, (message,) = warned(make)
        assert type(result) is Going and result.size == 2 and "test_deprecation.Going" in message
        assert warned(lambda: pickle.loads(pickle.dumps(result)))[0] == result  # noqa: B023


def test_a_class_and_a_property() -> None:
    made, (message,) = warned(lambda: Plain(3))
    assert isinstance(made, Plain) and "test_deprecation.Plain" in message

    class Derived(Plain):
        pass

    assert len(warned(lambda: Derived(3))[1]) == 1
    assert warned(lambda: made.y)[0] == 3 and "Plain.y" in warned(lambda: made.y)[1][0]
    with pytest.raises(TypeError, match="below @property"):
        deprecated(**WHEN, use="z")(property(lambda self: 1))


def test_names_of_a_module() -> None:
    notice = Notice("ldmkit.old.Slot", "0.2", "0.4", use="ldmkit.Slot")
    find = deprecated_names("ldmkit.old", {"Slot": ("ldmkit.contracts.signals:Slot", notice)})
    result, (message,) = warned(lambda: find("Slot"))
    assert result is ldmkit.Slot and message == notice.message
    with pytest.raises(AttributeError, match=r"module 'ldmkit\.old' has no attribute 'Slto'"):
        find("Slto")


def test_a_part_under_its_old_name(monkeypatch: pytest.MonkeyPatch) -> None:
    notice = Notice("sampler 'first-order'", "0.2", "0.4", use="'euler'")
    monkeypatch.setitem(deprecation.RENAMED_PARTS, ("sampler", "first-order"), ("euler", notice))
    result, messages = warned(lambda: ldmkit.get("sampler", "first-order"))
    assert result is ldmkit.get("sampler", "euler") and messages == [notice.message]
    assert "first-order" not in ldmkit.components("sampler")
    with pytest.raises(ldmkit.PluginError, match="unknown"):
        ldmkit.get("grid", "first-order")


def test_the_command_line_says_it_in_one_line(
    class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notice = Notice("sampler 'first-order'", "0.2", "0.4", use="'euler'")
    monkeypatch.setitem(deprecation.RENAMED_PARTS, ("sampler", "first-order"), ("euler", notice))
    words = ["--label", "1", "--steps", "2", "--sampler", "first-order", "-o"]
    assert main(["sample", str(class_folder), *words, f"{tmp_path}/a.png"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "deprecated" in line]
    assert lines == [f"warning: {notice.message}"]


def test_a_saved_pipeline_with_a_part_of_an_old_name(
    class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(class_folder, tmp_path / "old")
    path = folder / "pipeline.json"
    spec = json.loads(path.read_text().replace('"type": "unet"', '"type": "old-unet"'))
    del spec["digest"]
    path.write_text(json.dumps(spec))
    with pytest.raises(ldmkit.PluginError, match="old-unet"):
        ldmkit.load(folder)
    notice = Notice("denoiser 'old-unet'", "0.2", "0.4", use="'unet'")
    monkeypatch.setitem(deprecation.RENAMED_PARTS, ("denoiser", "old-unet"), ("unet", notice))
    pipe, messages = warned(lambda: ldmkit.load(folder))
    assert set(messages) == {notice.message} and pipe.spec.denoiser.type == "unet"


def test_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()
    seen: list[bool] = []

    @app.command()
    def draw(
        raw: bool = typer.Option(False, "--raw", hidden=True, callback=deprecated_flag("--raw", **WHEN, use="--plain")),
    ) -> None:
        seen.append(raw)

    def run(*words: str) -> list[str]:
        return warned(lambda: app(list(words), standalone_mode=False))[1]

    assert run() == [] and run("--raw") == ["--raw is deprecated since ldmkit 0.2 and goes in 0.4: use --plain"]
    assert seen == [False, True]
    with pytest.raises(SystemExit):
        app(["--help"])
    assert "--raw" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"use": "", "reason": ""}, "a replacement"),
        ({"use": "x", "reason": "y"}, "not both"),
        ({"use": "x", "removal": "0.3"}, "too soon"),
        ({"use": "x", "since": "1.3", "removal": "0.9"}, "too soon"),
        ({"use": "x", "removal": "soon"}, "no version"),
        ({"use": "x", "since": "1"}, "no version"),
        ({"use": "x", "what": " "}, "names what goes"),
    ],
)
def test_a_notice_is_complete(given: dict[str, str], word: str) -> None:
    with pytest.raises(TypeError, match=word):
        Notice(**{"what": "it", **WHEN, **given})
    assert Notice("it", "1.3", "2.0", use="x") and Notice("it", "1.3", "1.5", use="x")


SCRIPT = """
from ldmkit.plugins.deprecation import deprecated

@deprecated(since="0.2", removal="0.4", use="new()")
def old():
    pass

for _ in range(3):
    old()
old()
"""


def test_users_see_each_line_once_without_asking(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if "LdmkitDeprecationWarning" in line]
    assert [line.split(":")[1] for line in lines] == ["9", "10"], done.stderr


MAKERS = {
    "Notice": 2,
    "deprecated": None,
    "deprecated_parameter": None,
    "deprecated_fields": None,
    "deprecated_flag": None,
}
"""Calls that make a notice, and where `removal` stands in them if it has no name."""


def notices(source: str) -> Iterator[tuple[int, str]]:
    """(line, removal) of every deprecation in a source file."""
    if not any(f"{name}(" in source for name in MAKERS):
        return
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in MAKERS:
            continue
        place = MAKERS[name]
        given = [k.value for k in node.keywords if k.arg == "removal"]
        given += [node.args[place]] if place is not None and len(node.args) > place else []
        if given and isinstance(given[0], ast.Constant):
            yield node.lineno, str(given[0].value)
        else:
            yield node.lineno, "0.0"  # what cannot be read cannot be kept in time either


def overdue(source: str, now: str) -> list[int]:
    """Lines of deprecations that are past their date."""
    return [line for line, removal in notices(source) if version_of(now) >= version_of(removal)]


def test_nothing_is_kept_past_its_date() -> None:
    roots = [ROOT / name for name in ("ldmkit", "plugins", "conditioners", "samplers")]
    own = ROOT / "ldmkit" / "plugins" / "deprecation.py"
    files = [path for root in roots for path in root.rglob("*.py") if path != own]
    assert len(files) > 100
    late = [
        f"{path}:{line}" for path in files for line in overdue(path.read_text(encoding="utf-8"), ldmkit.__version__)
    ]
    assert not late, "past its removal: take it out, and accept the snapshot"


def test_what_is_late_is_found() -> None:
    source = SCRIPT + '\nn = deprecation.Notice("a", "0.2", "0.3", use="b")\nm = Notice("a", "0.2", soon, use="b")\n'
    assert overdue(source, "0.1.0") == [13] and overdue(source, "0.3.0") == [12, 13]
    assert overdue(source, "0.4.0rc1") == [4, 12, 13] == overdue(source, "1.0")
    assert Notice("a", "0.2", "0.4", use="b").overdue("0.4.1") and not Notice("a", "0.2", "0.4", use="b").overdue("0.3")


def test_the_version_is_the_distributions() -> None:
    assert ldmkit.__version__ == version("ldmkit")
