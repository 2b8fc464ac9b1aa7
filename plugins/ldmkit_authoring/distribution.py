"""The files of a new distribution, from templates of this package."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from ldmkit import InputError, RunError, __version__, suggest
from ldmkit.plugins.kinds import API, GROUPS
from ldmkit_authoring.naming import Names, names_for

_SAID = {"data": "source of data", "perceptual": "perceptual distance", "stage": "training stage"}
"""Words for parts of a kind in sentences, if they differ from the kind's name."""

SIGNALS = ("vector", "tokens", "plane", "residuals")
"""Signals of conditioners that come with a source of data and a recipe."""

_MAIL = re.compile(r"(?P<name>[^<>]*)<(?P<email>[^<>\s]+@[^<>\s]+)>")


def distribution(
    kind: str, name: str, author: str | None = None, taken: bool = False, signal: str | None = None
) -> tuple[Names, dict[str, str]]:
    """Names and files (path within the folder -> text) of a distribution with one part; of a conditioner with a
    `signal`, also the source of its training data and a recipe.

    Args:
        kind: of part, one of `ldmkit.plugins.kinds.GROUPS`.
        author: `Name` or `Name <mail>`; None leaves a placeholder.
        taken: another distribution has a part of that name, so that the new one is `dist:name`.
        signal: of a conditioner, one of `SIGNALS`.

    Raises:
        InputError: a name or an author that cannot be used; `signal`: there is no such one, or it is no conditioner.
    """
    _check_signal(kind, signal)
    chosen = {stem: _chosen(kind, signal, stem) for stem in ("module.py", "test.py", "use.md")}
    code = _template(chosen["module.py"]) + _template(chosen["test.py"])
    names = names_for(kind, name, frozenset(re.findall(r"\b[A-Z]\w*", code)))
    words = {
        "name": names.name,
        "found": f"{names.dist}:{names.name}" if taken else names.name,
        "reference": f"{names.dist}:{names.name}" if taken else f"{kind}:{names.name}",
        "dist": names.dist,
        "package": names.package,
        "module": names.module,
        "Class": names.cls,
        "kind": kind,
        "said": _SAID.get(kind, kind),
        "article": _article(kind).capitalize(),
        "group": GROUPS[kind],
        "api": str(API[kind]),
        "bound": bound(),
        "authors": _authors(author),
        "holder": author.strip() if author else "the author",
    }
    words |= _training_words(names, taken) if signal is not None else {"more_entries": "", "more_files": ""}
    words["use"] = Template(_template(chosen["use.md"])).substitute(words)
    source = f"src/{names.package}"
    made = {
        "pyproject.toml": "common/pyproject.toml",
        "README.md": "common/README.md",
        "LICENSE": "common/LICENSE",
        ".gitignore": "common/gitignore",
        f"{source}/__init__.py": "common/init.py",
        f"{source}/{names.module}.py": chosen["module.py"],
        f"tests/test_{names.module}.py": chosen["test.py"],
    }
    if signal is not None:
        made |= {"recipe.yaml": f"signals/{signal}/recipe.yaml"}
        made |= {f"{source}/{words['source']}.py": f"signals/{signal}/pictures.py"}
    texts = {path: Template(_template(template)).substitute(words) for path, template in made.items()}
    return names, texts | {f"{source}/py.typed": ""}


def _check_signal(kind: str, signal: str | None) -> None:
    """Raises InputError: `signal`."""
    if signal is not None and kind != "conditioner":
        what = f"{_article(kind)} {_SAID.get(kind, kind)} has no signal"
        raise InputError("signal", what, where="--signal", fits="ldmkit new conditioner NAME --signal ...")
    if signal is not None and signal not in SIGNALS:
        raise InputError(
            "signal", f"there is no signal {signal[:60]!r}", where="--signal", fits=suggest(signal, SIGNALS)
        )


def _chosen(kind: str, signal: str | None, stem: str) -> str:
    """The template of a file: that of the signal, else that of the kind."""
    own = f"signals/{signal}/{stem}"
    return own if signal is not None and _folder().joinpath(f"{own}.txt").is_file() else f"{kind}/{stem}"


def _training_words(names: Names, taken: bool) -> dict[str, str]:
    """Names in a distribution with a source of data."""
    source = "pictures" if names.module != "pictures" else "annotated"
    part = f"with-{names.name}"
    module, annotator = f"{names.package}.{names.module}", f"from {names.package}.{source} import With{names.cls}"
    entry = f'\n[project.entry-points."{GROUPS["data"]}"]\n{part} = "{names.package}.{source}:With{names.cls}"\n'
    rows = [
        f"| `src/{names.package}/{source}.py` | how training gets the input of each picture |\n",
        "| `recipe.yaml` | trains a model that takes it |\n",
    ]
    return {
        "source": source,
        "with": f"{names.dist}:{part}" if taken else part,
        "data_api": str(API["data"]),
        "more_entries": entry,
        "more_files": "".join(rows),
        "imports": "\n".join(sorted([annotator, f"from {module} import {names.cls}"])),
        "field_imports": "\n".join(sorted([annotator, f"from {module} import FIELD, {names.cls}"])),
    }


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def write(folder: Path, texts: dict[str, str]) -> None:
    """Write all files, or none: they are written to a temporary folder, which is then moved.

    Raises:
        InputError: `no-folder`, or `folder-exists`: existing files are never changed.
        RunError: `cannot-write`.
    """
    if not folder.parent.is_dir():
        raise InputError("no-folder", "the folder to write to does not exist", where=str(folder.parent))
    if folder.exists() or folder.is_symlink():
        what = "a file or folder of that name exists already"
        raise InputError("folder-exists", what, where=str(folder), fits="another name, or --out")
    aside: Path | None = None
    try:
        aside = Path(tempfile.mkdtemp(prefix=".ldmkit-", dir=folder.parent))
        for path, text in texts.items():
            target = aside / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
        aside.chmod(0o755)
        os.rename(aside, folder)  # noqa: PTH104 (Path.rename says the same of errors, and no more)
    except OSError as problem:
        raise RunError("cannot-write", f"writing failed: {problem.strerror or problem}", where=str(folder)) from problem
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def bound(version: str = __version__) -> str:
    """The versions of ldmkit that a new distribution requires: all from this version's first patch release on.

    Later ones are compatible (docs/stability.md); incompatible ones are recognised by the API version of parts.
    """
    match = re.match(r"(\d+)\.(\d+)(.*)", version)
    assert match is not None, version
    lowest = f"{match[1]}.{match[2]}" if re.fullmatch(r"(\.\d+)*", match[3]) else version  # 0.2 excludes 0.2.dev1
    return f">={lowest}"


def _authors(author: str | None) -> str:
    """The line of pyproject.toml; "" without an author.

    Raises:
        InputError: `author`.
    """
    if author is None:
        return ""
    match = _MAIL.fullmatch(author.strip())
    name = (match["name"] if match else author).strip()
    if not author.isprintable() or (not name and match is None) or (match is None and re.search("[<>]", author)):
        what = f"{author[:60]!r} cannot be an author"
        raise InputError("author", what, where="--author", fits="'Name', or 'Name <mail@example.org>'")
    fields = {"name": name} if name else {}
    fields |= {"email": match["email"]} if match else {}
    inside = ", ".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items())
    return f"authors = [{{ {inside} }}]\n"


@cache
def _template(name: str) -> str:
    return _folder().joinpath(f"{name}.txt").read_text(encoding="utf-8")


def _folder() -> Traversable:
    return files("ldmkit_authoring").joinpath("templates")
