"""docs/contracts.md is what the checks say, and its code does what it says."""

from __future__ import annotations

import contextlib
import io
import re

from ldmkit.plugins.kinds import GROUPS
from ldmkit.testing import page
from ldmkit.testing.checks import checks

TEXT = page.file().read_text(encoding="utf-8")


def test_page_is_up_to_date() -> None:
    assert page.page(TEXT) == TEXT, "stale: python -m ldmkit.testing.page --write"


def test_every_check_has_its_anchor_and_an_explanation() -> None:
    headings = re.findall(r"^### (.*)$", TEXT, flags=re.MULTILINE)
    found = [one for kind in ("part", *GROUPS) for one in checks(kind)]
    assert {one.docs for one in found} == {f"docs/contracts.md#{heading}" for heading in headings}
    assert len(set(headings)) == len(headings)
    for one in found:
        assert one.promise.endswith("."), f"{one.docs}: the promise is a sentence on the docstring's first line"


def test_python_prints_what_the_page_says() -> None:
    [code] = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    [wanted] = re.findall(r"```text\n(.*?)```", TEXT, flags=re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {"__name__": "page"})
    assert printed.getvalue() == wanted
