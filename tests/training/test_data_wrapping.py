"""What looks at a source through another one sees all of it."""

from __future__ import annotations

import inspect
from pathlib import Path

from data_sources import opened, picture
from ldmkit_training.before.rows import CheckedRows
from ldmkit_training.data.numbering import Renumbered
from ldmkit_training.data.sources.lying import SpatialDataset

from ldmkit.contracts.data import Dataset
from ldmkit.contracts.wrapping import Wrapping


def test_every_member_of_a_dataset_is_passed_on() -> None:
    """A member that is added to the contract, with its default, is not forgotten here."""
    methods = {name for name, _ in inspect.getmembers(Dataset) if not name.startswith("_")} | {"__len__", "__getitem__"}
    fields = set(Dataset.__annotations__)
    assert all(name in vars(Wrapping) for name in methods - fields)
    assert fields == {"geometry", "notes", "mixture", "numbering", "choices"}


def test_wrappers_keep_shares_and_numbers(tmp_path: Path) -> None:
    for name in ("a/cat", "a/dog", "b/cat", "b/dog"):
        picture(tmp_path / name / "0.png")
    sources = [{"type": "classes", "config": {"folder": folder, "numbers": True}} for folder in "ab"]
    data = opened("concat", tmp_path, sources=sources, weights=[1, 3])
    for wrapped in (
        SpatialDataset(data, {}),
        CheckedRows(data, {0: "bad"}),
        Renumbered(data, {"label": [0, 1]}, data.numbering),
    ):
        assert wrapped.mixture == ((2, 1), (2, 3)) and list(wrapped.numbering["label"]) == ["cat", "dog"]
        assert len(wrapped) == 4 and wrapped.id(3) == "1/dog/0.png" and wrapped.geometry == data.geometry
        assert wrapped[3].inputs == wrapped.inputs(3) == wrapped.known(3) == {"label": 1}
        assert (wrapped.content(3) or ())[:1] == data.content(3)[:1] and set(data.notes) <= set(wrapped.notes)
