"""What tests of the kit share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fake_distributions
import pytest

from ldmkit.plugins import catalogue


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_distributions.Distribution]:
    """See `fake_distributions.Distribution`."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    yield partial(fake_distributions.write, site)
    monkeypatch.undo()
    catalogue.refresh()
