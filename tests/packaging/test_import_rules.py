"""The import rules of the architecture, by `.ci/import_rules.py`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("import_rules", ROOT / ".ci" / "import_rules.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_violations(rules: ModuleType) -> None:
    assert rules.violations() == []


def test_every_package_is_looked_at(rules: ModuleType) -> None:
    packages = {name.split(".")[0] for name in rules.modules()}
    assert {"ldmkit", "ldmkit_codecs", "ldmkit_conditioners", "ldmkit_samplers", "ldmkit_checkpoints"} <= packages
    assert len(rules.modules()) > 80


@pytest.mark.parametrize(
    ("package", "source", "word"),
    [
        ("ldmkit", "from ldmkit_codecs.kl import KLCodec\n", "may not import ldmkit_codecs"),
        ("ldmkit", "def f():\n    import ldmkit_samplers\n", "may not import ldmkit_samplers"),
        ("ldmkit_samplers", "import ldmkit_denoisers.unet\n", "may not import ldmkit_denoisers"),
        ("ldmkit_codecs", "import diffusers\n", "tool of the tests"),
        ("ldmkit_codecs", "import transformers\n", "at the top"),
        ("ldmkit_codecs", "from . import kl\n", "relative"),
        ("ldmkit_stranger", "import ldmkit\n", "has no rule"),
        ("ldmkit_codecs", "from ldmkit.contracts.codec import Codec\n", "which is not public"),
        ("ldmkit_samplers", "def f():\n    import ldmkit.run.guards\n", "which is not public"),
    ],
)
def test_the_rules_find_violations(
    rules: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, source: str, word: str
) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / package / "bad.py").write_text(source)
    monkeypatch.setattr(rules, "ROOT", tmp_path)
    monkeypatch.setattr(rules, "SOURCES", (tmp_path,))
    assert any(word in line for line in rules.violations())


def test_what_is_public_may_be_imported(rules: ModuleType) -> None:
    assert not rules.private("ldmkit_codecs", "ldmkit") and not rules.private("ldmkit_codecs", "ldmkit.bounds")
    assert not rules.private("ldmkit_training", "ldmkit.run.inputs") and rules.private(
        "ldmkit_codecs", "ldmkit.run.inputs"
    )


def test_every_exception_is_needed(rules: ModuleType) -> None:
    used = {
        (module.split(".")[0], item.target)
        for module, path in rules.modules().items()
        for item in rules.imports(module, path)
    }
    idle = [
        (package, name)
        for package, names in rules.PRIVATE.items()
        for name in names
        if not any(who == package and f"{target}.".startswith(f"{name}.") for who, target in used)
    ]
    assert not idle


def test_imports_point_down(rules: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, source in (("contracts", "def f():\n    from ldmkit.run.late import y\n"), ("run", "y = 1\n")):
        (tmp_path / "ldmkit" / name).mkdir(parents=True)
        (tmp_path / "ldmkit" / name / "__init__.py").write_text("")
        (tmp_path / "ldmkit" / name / "late.py").write_text(source)
    (tmp_path / "ldmkit" / "__init__.py").write_text("from ldmkit.run.late import y\n")
    monkeypatch.setattr(rules, "ROOT", tmp_path)
    monkeypatch.setattr(rules, "SOURCES", (tmp_path,))
    assert [line.partition(": ")[2] for line in rules.violations()] == [
        "ldmkit.contracts.late stands below ldmkit.run.late, and may not import it"
    ]


@pytest.mark.parametrize(
    "back",
    [
        "from ldmkit.files.a import y",
        "if TYPE_CHECKING:\n    import ldmkit.files.a",
        "def f():\n    import ldmkit.files.a",
    ],
)
def test_the_rules_find_cycles(rules: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: str) -> None:
    folder = tmp_path / "ldmkit" / "files"
    folder.mkdir(parents=True)
    for path in (tmp_path / "ldmkit", folder):
        (path / "__init__.py").write_text("")
    (folder / "a.py").write_text("from ldmkit.files.b import x\n")
    (folder / "b.py").write_text(back + "\n")
    monkeypatch.setattr(rules, "ROOT", tmp_path)
    monkeypatch.setattr(rules, "SOURCES", (tmp_path,))
    assert any("cycle" in line for line in rules.violations())
