"""The site is built strictly: no link and no anchor that leads nowhere, nothing that is fetched from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ldmkit.plugins.kinds import GROUPS

ROOT = Path(__file__).resolve().parents[2]
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=\"?(https?:[^\s\">]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages."""
    pytest.importorskip("zensical", reason="pip install -c constraints.txt '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs")
    config = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    sources = '[".", "plugins", "conditioners", "samplers"]'
    assert sources in config
    absolute = [str(ROOT), *(str(ROOT / name) for name in ("plugins", "conditioners", "samplers"))]
    (folder / "zensical.toml").write_text(config.replace(sources, str(absolute).replace("'", '"')), encoding="utf-8")
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(build, cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ})
    assert done.returncode == 0, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)[-4000:]
    return folder / "site"


def test_every_page_is_built(site: Path) -> None:
    wanted = {p.relative_to(ROOT / "docs").with_suffix("") for p in (ROOT / "docs").rglob("*.md")}
    built = {p.parent.relative_to(site) for p in site.rglob("index.html")}
    assert {p.parent if p.name == "index" else p for p in wanted} <= built


@pytest.mark.parametrize("kind", GROUPS)
def test_contracts_are_rendered_from_their_docstrings(site: Path, kind: str) -> None:
    text = (site / "reference" / kind / "index.html").read_text(encoding="utf-8")
    assert re.search(rf'id="?ldmkit\.[\w.]+\.{kind.capitalize()}[">]', text)
    assert ":::" not in text


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    found = {url for page in site.rglob("*.html") for url in LOADED.findall(page.read_text(encoding="utf-8"))}
    assert found == set()


def test_fences_became_blocks(site: Path) -> None:
    for page in site.rglob("index.html"):
        assert "```" not in page.read_text(encoding="utf-8"), f"{page}: a fence that the site does not understand"
