"""`ldmkit new`: what it writes, what it refuses, and that nothing that is there is ever lost."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from ldmkit_authoring.distribution import SIGNALS, bound, distribution, write
from ldmkit_authoring.naming import RULE, check_name, suggestion
from ldmkit_training.before.recipe import parse_recipe
from packaging.specifiers import SpecifierSet

import ldmkit
from ldmkit.cli import main
from ldmkit.errors import InputError, RunError
from ldmkit.plugins.kinds import API, GROUPS, MODULES

KINDS = sorted(GROUPS)
Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, *arguments: object) -> tuple[int, str, str]:
    code = main(["new", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_distribution_for_every_kind(kind: str, tmp_path: Path, capsys: Capture) -> None:
    code, out, err = run(capsys, kind, "red-kite", "--out", tmp_path, "--author", "Ann Lee <ann@example.org>")
    assert (code, err) == (0, "")
    folder = tmp_path / "ldmkit-red-kite"
    made = files_of(folder)
    assert set(made) == {
        *("pyproject.toml", "README.md", "LICENSE", ".gitignore", "tests/test_red_kite.py"),
        *(f"src/ldmkit_red_kite/{name}" for name in ("__init__.py", "red_kite.py", "py.typed")),
    }
    assert [name for name, text in made.items() if b"$" in text] == []
    assert str(folder / "src/ldmkit_red_kite/red_kite.py") in out
    project = tomllib.loads(made["pyproject.toml"].decode())["project"]
    assert project["entry-points"] == {GROUPS[kind]: {"red-kite": "ldmkit_red_kite.red_kite:RedKite"}}
    assert project["authors"] == [{"name": "Ann Lee", "email": "ann@example.org"}]
    assert project["dependencies"] == [f"ldmkit{bound()}"]
    assert "placeholder" in made["LICENSE"].decode()


@pytest.mark.parametrize("kind", KINDS)
def test_its_module_is_a_part_of_that_kind(kind: str, tmp_path: Path) -> None:
    names, texts = distribution(kind, "red-kite")
    path = tmp_path / "red_kite.py"
    path.write_text(texts["src/ldmkit_red_kite/red_kite.py"], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("ldmkit_red_kite.red_kite", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pydantic looks annotations up there
    try:
        spec.loader.exec_module(module)
        cls = getattr(module, names.cls)
        assert issubclass(cls, getattr(ldmkit, kind.capitalize())) and vars(cls)["api"] == API[kind]
        assert cls.__doc__ and cls.examples
        for example in cls.examples:
            if kind == "stage":
                made = cls.build(cls.Config.of(example.config), ldmkit.StageSetup(tmp_path))
            else:
                made = cls(example.config) if kind in MODULES else cls.of(example.config)
            assert isinstance(made, cls)
    finally:
        del sys.modules[spec.name]


def test_what_is_written_is_clean(tmp_path: Path) -> None:
    """Linter and formatter, by the settings that are written along; short, long and many-worded names."""
    ruff = shutil.which("ruff", path=Path(sys.executable).parent) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed")
    for number, name in enumerate(["a", "red-kite", "pictures", "a-very-long-name-for-any-part"]):
        for kind in KINDS:
            _, texts = distribution(kind, name)
            write(tmp_path / f"{number}-{kind}", texts)
        for signal in SIGNALS:
            _, texts = distribution("conditioner", name, signal=signal)
            write(tmp_path / f"{number}-{signal}-signal", texts)
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([ruff, *command, "--no-cache", "."], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[:2000]


RECIPE = """
stage: denoiser
out: runs/x
steps: 1
data: {train: {type: folder, config: {folder: x}}, size: [32, 32]}
model: {codec: {from: miniworld}, denoiser: {type: unet}, process: {type: flow}}
"""
CODEC = """
stage: codec
out: runs/x
steps: 1
data: {train: {type: folder, config: {folder: x}}, size: [32, 32]}
model: {type: kl}
"""


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "stage"])  # that one is trained by its own recipe
def test_what_its_readme_says_of_recipes(kind: str) -> None:
    """Whole recipes, and parts of one that are put into another, have no key that does not exist."""
    _, texts = distribution(kind, "red-kite")
    blocks = re.findall(r"```yaml\n(.*?)```", texts["README.md"], re.S)
    assert len(blocks) == (
        0 if kind in ("sampler", "grid", "guidance", "cache", "extractor", "captioner", "rewriter") else 1
    )
    for block in map(yaml.safe_load, blocks):
        base = block if "stage" in block else yaml.safe_load(CODEC if kind == "perceptual" else RECIPE)
        for key, value in block.items():
            base[key] = base[key] | value if isinstance(base.get(key), dict) else value
        assert "red-kite" in parse_recipe(base).model_dump_json()


def test_json(tmp_path: Path, capsys: Capture) -> None:
    code, out, _ = run(capsys, "sampler", "kite", "--out", tmp_path, "--json")
    told = json.loads(out)
    assert code == 0 and told["distribution"] == "ldmkit-kite" and told["class"] == "Kite"
    assert sorted(files_of(Path(told["path"]))) == told["files"] and Path(told["module"]).is_file()


BAD = {
    "": None,
    "My-Sampler": "my-sampler",
    "mySampler": "my-sampler",
    "two words": "two-words",
    "under_score": "under-score",
    "-dash": "dash",
    "double--dash": "double-dash",
    "3rd": "rd",
    "köder": "koder",
    "ｋｉｔｅ": "kite",
    "пример": None,
    "../evil": "evil",
    "a/b": "a-b",
    "x" * 31: "x" * 30,
    "kite\n": "kite",
    "class": "class-part",
    "lambda": "lambda-part",
    "ldmkit-kite": "kite",
}


@pytest.mark.parametrize("name", BAD, ids=[f"name{number}" for number in range(len(BAD))])
def test_names_that_cannot_be(name: str, tmp_path: Path, capsys: Capture) -> None:
    code, _, err = run(capsys, "sampler", "--out", tmp_path, "--", name)
    assert code == 2 and "[input.part-name]" in err
    better = BAD[name]
    assert better is None or better in err.split("(", 1)[1]
    assert list(tmp_path.iterdir()) == []
    if better is not None:
        distribution("sampler", better)


SUGGESTED = {
    "DPM++2M": "dpm-2-m",
    "HTTPServer": "http-server",
    "v2Sampler": "v-2-sampler",
    "__x__": "x",
    "éà": "ea",
    "LDMKit-Kite": "ldm-kit-kite",
    "ldmkit-kite": "kite",
    "ldmkit-ldmkit-x": "x",
    "ldmkit-3d": "d",
    "Class": "class-part",
    "ldmkit-lambda": "lambda-part",
    "---": None,
}


@pytest.mark.parametrize("name", SUGGESTED)
def test_suggestions_are_accepted(name: str) -> None:
    with pytest.raises(InputError) as caught:
        check_name(name)
    wanted = SUGGESTED[name]
    assert suggestion(name) == wanted
    if wanted is None:
        assert caught.value.fits == RULE
    else:
        check_name(wanted)
        assert f"{wanted!r}" in str(caught.value.fits)


def test_an_unknown_kind(tmp_path: Path, capsys: Capture) -> None:
    code, _, err = run(capsys, "samplr", "kite", "--out", tmp_path)
    assert code == 4 and "did you mean 'sampler'" in err


@pytest.mark.parametrize("there", ["folder", "empty", "file", "link"])
def test_what_is_there_stays(there: str, tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "ldmkit-kite"
    if there == "folder":
        target.mkdir()
        (target / "pyproject.toml").write_text("mine")
    elif there == "empty":
        target.mkdir()
    elif there == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    before = files_of(tmp_path)
    code, _, err = run(capsys, "sampler", "kite", "--out", tmp_path)
    assert code == 2 and "[input.folder-exists]" in err
    assert files_of(tmp_path) == before and [p.name for p in tmp_path.iterdir()] == ["ldmkit-kite"]


def test_the_folder_to_write_to_exists(tmp_path: Path, capsys: Capture) -> None:
    code, _, err = run(capsys, "sampler", "kite", "--out", tmp_path / "no" / "where")
    assert code == 2 and "[input.no-folder]" in err and list(tmp_path.iterdir()) == []


def test_half_a_distribution_is_none(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot-write"):
        write(tmp_path / "made", {"good.txt": "x", "x" * 300: "a name too long for a file"})
    assert list(tmp_path.iterdir()) == []


def test_names_of_packages_that_are_there(tmp_path: Path, capsys: Capture) -> None:
    code, _, err = run(capsys, "sampler", "samplers", "--out", tmp_path)
    assert code == 2 and "[input.package-taken]" in err and "ldmkit_samplers" in err


def test_a_namesake_is_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert main(["new", "sampler", "heun", "--out", str(tmp_path)]) == 0
        assert main(["new", "grid", "euler", "--out", str(tmp_path)]) == 0  # a sampler's name is free for a grid
    assert (tmp_path / "ldmkit-heun").is_dir() and (tmp_path / "ldmkit-euler").is_dir()
    assert told == []  # the command line prints them instead


def test_a_namesake_is_told(tmp_path: Path, capsys: Capture) -> None:
    _, _, err = run(capsys, "sampler", "heun", "--out", tmp_path)
    assert err.startswith("warning: a sampler 'heun' is installed already, by ldmkit ") and "'ldmkit-heun:heun'" in err
    folder = tmp_path / "ldmkit-heun"  # its tests and its README mean the new one
    assert 'get("sampler", "ldmkit-heun:heun") is' in (folder / "tests" / "test_heun.py").read_text()
    said = (folder / "README.md").read_text()
    assert said.count("ldmkit-heun:heun") == 4 and "--sampler ldmkit-heun:heun --steps" in said
    assert 'heun = "ldmkit_heun.heun:' in (folder / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("kind", "name"), [("sampler", "step"), ("sampler", "sampler"), ("conditioner", "vector"), ("grid", "exception")]
)
def test_classes_do_not_hide_what_they_use(kind: str, name: str) -> None:
    names, texts = distribution(kind, name)
    assert names.cls == name.capitalize() + kind.capitalize()
    tree = ast.parse(texts[f"src/{names.package}/{names.module}.py"])
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names}
    assert names.cls in classes and imported.isdisjoint(classes)


@pytest.mark.parametrize(
    ("author", "fields"),
    [
        ("Ann Lee", {"name": "Ann Lee"}),
        ("<ann@example.org>", {"email": "ann@example.org"}),
        ('Ann "Á" \\ Lee <a@b.c>', {"name": 'Ann "Á" \\ Lee', "email": "a@b.c"}),
    ],
)
def test_authors(author: str, fields: dict[str, Any]) -> None:
    _, texts = distribution("sampler", "kite", author)
    assert tomllib.loads(texts["pyproject.toml"])["project"]["authors"] == [fields]
    assert author in texts["LICENSE"]


@pytest.mark.parametrize("author", ["", " ", "Ann\nLee", "Ann <ann>", "Ann\x00"])
def test_no_authors(author: str) -> None:
    with pytest.raises(InputError, match=r"input\.author"):
        distribution("sampler", "kite", author)


@pytest.mark.parametrize("version", ["0.1.0", "0.1.7", "1.12.3", "2.0", "0.2.0.dev1", "0.3.0rc2"])
def test_the_version_bound_admits_what_made_it_and_all_later_releases(version: str) -> None:
    allowed = SpecifierSet(bound(version))
    major, minor = (int(number) for number in version.split(".")[:2])
    assert allowed.contains(version, prereleases=True) and allowed.contains(f"{major}.{minor}.99")
    assert allowed.contains(f"{major}.{minor + 1}") and allowed.contains(f"{major + 1}.0")
    assert not allowed.contains(f"{major}.{minor - 1}.5")
