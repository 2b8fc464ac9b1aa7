"""Sources that add what is computed from a picture: the rest of the source is kept, and what is added is declared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from data_sources import picture
from ldmkit_training.data.identity import differing, identity

from ldmkit import Annotator, Data, Example
from ldmkit.errors import InputError, SpecError
from ldmkit.testing import check_data

SOURCES = [{"type": "classes", "config": {"folder": folder, "numbers": True}} for folder in "ab"]
CONCAT = {"type": "concat", "config": {"sources": SOURCES, "weights": [1, 3]}}


class WithMean(Annotator):
    """The mean of each picture, times a factor."""

    api: ClassVar[int] = 1
    adds: ClassVar[Mapping[str, Any]] = {"mean": "none"}
    examples: ClassVar[tuple[Example, ...]] = (
        Example({"source": {"type": "classes", "config": {"folder": "p", "classes": ["day", "night"]}}}),
    )

    factor: float = 1.0

    def annotate(self, image: np.ndarray) -> Mapping[str, Any]:
        return {"mean": float(image.mean() * self.factor)}


class Silent(WithMean):
    """Gives what it does not declare."""

    adds: ClassVar[Mapping[str, Any]] = {"other": "none"}


def opened(root: Path, part: type[Annotator] = WithMean, **config: Any) -> Any:
    for name in ("a/cat", "a/dog", "b/cat", "b/dog"):
        picture(root / name / "0.png")
    return part.of({"source": CONCAT, **config}).open(root)


def test_it_keeps_the_contract() -> None:
    check_data(WithMean).require()
    assert issubclass(Annotator, Data)


def test_what_the_source_says_is_kept(tmp_path: Path) -> None:
    data = opened(tmp_path)
    assert data.mixture == ((2, 1), (2, 3)) and list(data.numbering["label"]) == ["cat", "dog"]
    assert dict(data.geometry) == {"label": "none", "mean": "none"}
    sample = data[3]
    assert sample.inputs == data.inputs(3) == {"label": 1, "mean": float(sample.image.mean())}
    assert data.known(3) == {"label": 1} and data.picture_size(3) == sample.image.shape[:2]


def test_other_annotations_are_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, other = opened(tmp_path), opened(tmp_path), opened(tmp_path, factor=2)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert differing(identity(first), identity(again)) == [] != differing(identity(first), identity(other))
    before = identity(first)
    monkeypatch.setattr(WithMean, "revision", 2)
    assert differing(before, identity(again)) != []


def test_names_are_not_taken_twice_nor_silently_added(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gives 'mean', which is not in `adds`"):
        opened(tmp_path, Silent)[0]
    inner = {"type": "classes", "config": {"folder": "a"}}
    monkey = type("Labelled", (WithMean,), {"adds": {"label": "none"}, "__module__": __name__, "__doc__": "Twice."})
    with pytest.raises(SpecError, match="has the input 'label'"):
        monkey.of({"source": inner}).open(tmp_path)
