"""Weight files that are written: readable by others, and laid out so that results do not depend on the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import ldmkit
from ldmkit.models.weights import (
    ALIGNMENT,
    MAPPED_ALIGNMENT,
    assign,
    open_safetensors,
    read_metadata,
    write_safetensors,
)

TENSORS = {
    "a.bias": torch.arange(3.0),
    "b.weight": torch.randn(16, 4, generator=torch.Generator().manual_seed(0)),
    "c.count": torch.tensor(7),
    "d.half": torch.ones(5, dtype=torch.bfloat16),
    "e.mask": torch.tensor([True, False, True]),
    "f.turned": torch.arange(12.0).view(3, 4).t(),
    "g.nothing": torch.zeros(0, 3),
}


def test_written_files_are_plain_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, TENSORS | {"h.tied": TENSORS["a.bias"]}, {"made": "here"})
    theirs = safetensors.torch.load_file(path)
    assert theirs.keys() == {*TENSORS, "h.tied"}
    assert all(torch.equal(theirs[key], value) and theirs[key].dtype == value.dtype for key, value in TENSORS.items())
    assert read_metadata(path) == {"format": "pt", "made": "here"}
    ours = open_safetensors(path)
    assert all(torch.equal(ours[key].read(copy), value) for key, value in TENSORS.items() for copy in (True, False))
    assert ours["b.weight"].read(False).data_ptr() % ALIGNMENT == 0, "mapped as it lies in the file"


def test_what_the_format_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, TENSORS)
    before = path.read_bytes()
    with pytest.raises(ldmkit.WeightsError) as caught:
        write_safetensors(path, {"ok": torch.ones(1), "phase": torch.ones(2, dtype=torch.complex64)})
    assert caught.value.code == "weights.unknown-dtype" and "'phase'" in caught.value.what
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_weights_start_on_good_addresses_whatever_the_file(tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5), nn.Linear(5, 7))
    values = {key: torch.randn(value.shape) for key, value in net.state_dict().items()}
    safetensors.torch.save_file(values, path)
    lazy = open_safetensors(path)
    assert any(lazy[key].read(False).data_ptr() % MAPPED_ALIGNMENT for key in values), "else this tests nothing"
    assign(net, lazy, "net")
    assert all(value.data_ptr() % MAPPED_ALIGNMENT == 0 for value in net.state_dict().values())
    assert all(torch.equal(net.state_dict()[key], value) for key, value in values.items())
