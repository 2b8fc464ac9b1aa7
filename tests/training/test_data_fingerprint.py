"""The fingerprint that a source inherits follows what its samples hold: latents of other pictures are not reused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counting_codec import TINY, Counting
from data_sources import section
from ldmkit_training.data.cache.reading import latent_cache

from ldmkit import Dataset, InputError, Sample
from ldmkit.contracts.wrapping import Wrapping


class Pictures(Dataset):
    """Pictures of one colour each, in memory; ids stay where colours are exchanged."""

    geometry: Mapping[str, Any] = {"label": "none"}

    def __init__(self, levels: list[int], labels: list[int] | None = None, told: bool = False) -> None:
        self.levels, self.labels, self.told, self.decoded = levels, labels or [0] * len(levels), told, 0

    def __len__(self) -> int:
        return len(self.levels)

    def id(self, index: int) -> str:
        return f"{index}.png"

    def __getitem__(self, index: int) -> Sample:
        self.decoded += 1
        if self.levels[index] < 0:
            raise InputError("bad-file", "damaged", where=self.id(index))
        return Sample(self.id(index), np.full((16, 16, 3), self.levels[index], np.uint8), self.inputs(index))

    def inputs(self, index: int) -> Mapping[str, Any]:
        return {"label": self.labels[index]}

    def content(self, index: int) -> tuple[bytes, bytes] | None:
        return (b"%d" % self.labels[index], b"%d" % self.levels[index]) if self.told else None


@pytest.mark.parametrize("told", [False, True])
def test_it_follows_pictures_inputs_and_count(told: bool) -> None:
    def fingerprint(levels: list[int], labels: list[int] | None = None) -> str:
        made = Pictures(levels, labels, told)
        found = made.fingerprint
        assert made.decoded == (0 if told else len(levels)) and made.fingerprint == found
        return found

    different = [
        ([1, 2], None),
        ([1, 3], None),
        ([2, 1], None),
        ([1], None),
        ([1, 2], [0, 1]),
        ([1, -1], None),
        ([], None),
    ]
    found = [fingerprint(*one) for one in different]
    assert len(set(found)) == len(found)
    assert not any("samples of" in one for one in found)


def test_of_many_samples_some_are_decoded_and_it_says_so() -> None:
    """64 of 1000: every 15.6th from the first on."""
    levels = [i % 200 for i in range(1000)]
    source = Pictures(levels)
    assert source.fingerprint.startswith("64 samples of 1000: ") and source.decoded == 64
    looked_at, other = [*levels], [*levels]
    looked_at[15 * 1000 // 64] += 1
    other[1] += 1
    assert Pictures(looked_at).fingerprint != source.fingerprint == Pictures(other).fingerprint
    whole = Pictures(levels, told=True).fingerprint
    assert "samples of" not in whole and Pictures(other, told=True).fingerprint != whole


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("count", [8, 80])
def test_a_cache_of_edited_pictures_is_made_anew(tmp_path: Path, count: int, wrapped: bool) -> None:
    torch.manual_seed(0)
    codec, said = Counting(Counting.Config.of(TINY)), list[str]()
    rule = section(cache={"folder": "kept", "batch": 4}, size=(16, 16))

    def latents(levels: list[int]) -> torch.Tensor:
        source: Dataset = Pictures(levels)
        made = latent_cache(Wrapping(source) if wrapped else source, rule, codec, tmp_path, say=said.append)
        return made.latents([0, 1])[0]

    first = latents([10] * count)
    assert torch.equal(latents([10] * count), first) and not any("out of date" in line for line in said)
    assert not torch.equal(latents([200] * count), first)
    assert any("out of date (data changed)" in line for line in said)
    assert any("cannot tell" in line for line in said) is (count > 64)
