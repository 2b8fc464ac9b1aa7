"""What goes says so: once for each line that uses it, with versions and what to use instead; and it goes in time."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from pydantic import model_validator

import ldmkit
from ldmkit.cli import main
from ldmkit.plugins import deprecation
from ldmkit.plugins.deprecation import Notice, version_of

ROOT = Path(__file__).parents[2]
WHEN = {"since": "0.2", "removal": "0.4"}


FACTOR = Notice("grow(factor=...)", **WHEN, use="scale=...")


def grow(x: int, *, scale: int = 1, factor: int | None = None) -> int:
    """x times scale, which was called factor."""
    if factor is not None:
        FACTOR.warn()
        scale = factor
    return x * scale


class Old(ldmkit.Value):
    """A value with a renamed field."""

    width: int = 1

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, data: Any) -> Any:
        if "channels" in data:
            Notice("field 'channels'", **WHEN, use="'width'").warn()
            data = {**data, "width": data["channels"]}
            del data["channels"]
        return data


def warned(call: Callable[[], Any]) -> tuple[Any, list[str]]:
    """The result of a call, and the messages of our warnings, every one of which points at this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    assert all(w.filename == __file__ for w in caught if w.category is ldmkit.LdmkitDeprecationWarning)
    return result, [str(w.message) for w in caught if w.category is ldmkit.LdmkitDeprecationWarning]


def called_from_ldmkit(notice: Notice) -> Any:
    """A function in a module of ldmkit's that warns."""
    scope = {"__name__": "ldmkit.somewhere", "notice": notice}
    exec("def call(): notice.warn()", scope)
    return scope["call"]


def test_a_notice_says_what_goes_when_and_what_to_use() -> None:
    assert warned(lambda: called_from_ldmkit(FACTOR)())[1] == [
        "grow(factor=...) is deprecated since ldmkit 0.2 and will be removed in 0.4: use scale=..."
    ]
    gone = Notice("--fast", **WHEN, reason="it is always fast")
    assert warned(called_from_ldmkit(gone))[1] == [
        "--fast is deprecated since ldmkit 0.2 and will be removed in 0.4: it is always fast"
    ]


def test_a_renamed_parameter() -> None:
    assert warned(lambda: grow(2, scale=3)) == (6, [])
    assert warned(lambda: grow(2, factor=3)) == (6, [FACTOR.message])


def test_a_renamed_field_points_through_pydantic() -> None:
    assert warned(lambda: Old(width=3)) == (Old(3), [])
    for make in (lambda: Old(channels=3), lambda: Old.of({"channels": 3}), lambda: Old.model_validate({"channels": 3})):
        result, messages = warned(make)
        assert result == Old(3)
        assert messages == ["field 'channels' is deprecated since ldmkit 0.2 and will be removed in 0.4: use 'width'"]


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


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"use": "", "reason": ""}, "a replacement"),
        ({"use": "x", "reason": "y"}, "not both"),
        ({"use": "x", "removal": "0.3"}, "too soon"),
        ({"use": "x", "since": "1.3", "removal": "0.9"}, "too soon"),
        ({"use": "x", "removal": "soon"}, "not a version"),
        ({"use": "x", "since": "1"}, "not a version"),
        ({"use": "x", "what": " "}, "must name what is deprecated"),
    ],
)
def test_a_notice_is_complete(given: dict[str, str], word: str) -> None:
    with pytest.raises(TypeError, match=word):
        Notice(**{"what": "it", **WHEN, **given})
    assert Notice("it", "1.3", "2.0", use="x") and Notice("it", "1.3", "1.5", use="x")


SCRIPT = """
from ldmkit.plugins.deprecation import Notice

OLD = Notice("old()", "0.2", "0.4", use="new()")

for _ in range(3):
    OLD.warn()
OLD.warn()
"""


def test_users_see_each_line_once_without_asking(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if "LdmkitDeprecationWarning" in line]
    assert [line.split(":")[1] for line in lines] == ["7", "8"], done.stderr


def notices(source: str) -> Iterator[tuple[int, str]]:
    """(line, removal) of every deprecation in a source file."""
    for node in ast.walk(ast.parse(source)) if "Notice(" in source else ():
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name != "Notice":
            continue
        given = [*[k.value for k in node.keywords if k.arg == "removal"], *node.args[2:3]]
        if given and isinstance(given[0], ast.Constant):
            yield node.lineno, str(given[0].value)
        else:
            yield node.lineno, "0.0"  # what cannot be read cannot be kept in time either


def overdue(source: str, now: str) -> list[int]:
    """Lines of deprecations that are past their date."""
    return sorted(line for line, removal in notices(source) if version_of(now) >= version_of(removal))


def test_nothing_is_kept_past_its_date() -> None:
    roots = [ROOT / name for name in ("ldmkit", "plugins", "conditioners", "samplers")]
    files = [path for root in roots for path in root.rglob("*.py")]
    assert len(files) > 100
    late = [
        f"{path}:{line}" for path in files for line in overdue(path.read_text(encoding="utf-8"), ldmkit.__version__)
    ]
    assert not late, "past its removal: take it out, and accept the snapshot"


def test_what_is_late_is_found() -> None:
    source = SCRIPT + '\nn = deprecation.Notice("a", "0.2", "0.3", use="b")\nm = Notice("a", "0.2", soon, use="b")\n'
    assert overdue(source, "0.1.0") == [11] and overdue(source, "0.3.0") == [10, 11]
    assert overdue(source, "0.4.0rc1") == [4, 10, 11] == overdue(source, "1.0")


def test_the_version_is_the_distributions() -> None:
    assert ldmkit.__version__ == version("ldmkit")
