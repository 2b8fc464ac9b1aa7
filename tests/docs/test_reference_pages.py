"""docs/reference is what docstrings and schemas say, and every link of the documentation leads somewhere."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from ldmkit.plugins.kinds import GROUPS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_pages", ROOT / ".ci" / "reference_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_up_to_date(generator: ModuleType) -> None:
    made = generator.pages()
    stale = [path.name for path, text in made.items() if not path.is_file() or path.read_text("utf-8") != text]
    assert stale == [], "run `python .ci/reference_pages.py --write`"
    assert {path.name for path in generator.FOLDER.iterdir()} == {path.name for path in made}


def test_every_part_has_its_place(generator: ModuleType) -> None:
    for kind, group in GROUPS.items():
        page = (generator.FOLDER / f"{kind}.md").read_text(encoding="utf-8")
        assert re.findall(r"^## (.*)$", page, re.M) == [*generator.entries(group), "The contract"]


def test_docstrings_are_taken_apart(generator: ModuleType) -> None:
    class Documented:
        """What it is.

        Args:
            one: first,
                and more.
            two, three: both: alike.

        Raises:
            ValueError: never.
        """

    text, args = generator.described(Documented)
    assert text == "What it is.\n\nRaises:\n    ValueError: never."
    assert args == {"one": "first, and more.", "two": "both: alike.", "three": "both: alike."}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", re.sub(r"`[^`]*`", "", page.read_text(encoding="utf-8"))):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_navigation() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    listed: list[str] = []
    waiting = list(nav)
    while waiting:
        for value in waiting.pop().values():
            waiting += value if isinstance(value, list) else []
            listed += [value] if isinstance(value, str) else []
    assert sorted(listed) == sorted(p.relative_to(ROOT / "docs").as_posix() for p in PAGES[1:])
