"""Cached latents: the same batches as encoding on the fly, built aside, resumed, and never out of date."""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counting_codec import TINY, Counting
from data_sources import Squares, section
from ldmkit_codecs.identity import IdentityCodec
from ldmkit_codecs.kl import KLCodec
from ldmkit_codecs.vq import VQCodec
from ldmkit_training.data.batches import Batches
from ldmkit_training.data.cache import rows as cache_rows
from ldmkit_training.data.cache.reading import LatentCache, latent_cache
from ldmkit_training.data.geometry import random_draw
from ldmkit_training.data.reading import Reader, stacked, unit
from ldmkit_training.data.section import DataSection
from torch import Tensor

from ldmkit.contracts.data import Dataset, Geometry, Sample
from ldmkit.errors import CompositionError, InputError, RunError, SpecError


@pytest.fixture
def codec() -> KLCodec:
    torch.manual_seed(0)
    made = KLCodec(KLCodec.Config.of(TINY))
    made.train()
    return made


def cached(**changes: Any) -> DataSection:
    cache = {"folder": "kept/latents", "batch": 4, **changes.pop("cache", {})}
    return section(cache=cache, **changes)


class Said(list[str]):
    """What a build said."""

    def __call__(self, sentence: str) -> None:
        self.append(sentence)


def test_rows_are_what_the_codec_makes(codec: KLCodec, tmp_path: Path) -> None:
    """Modes to 1e-6; deviations are differences of two encodings, to 1e-5 of latents of about 1."""
    rule = cached(fit="random-crop", mirror=0.5, cache={"views": 3})
    said = Said()
    cache = latent_cache(Squares(), rule, codec, tmp_path, say=said)
    assert len(said) == 1 and "encoding 10 of 10" in said[0]
    assert codec.training, "the codec is left as it was"
    assert (len(cache), cache.views, cache.shape) == (10, 3, (2, 8, 8))
    reader = Reader(Squares(), rule)
    for index in range(10):
        for view in range(3):
            row = reader.read(index, random_draw("cache", view, Squares().id(index)))
            with torch.no_grad():
                posterior = codec.posterior(unit(stacked([row])))
            mode, deviation = cache.latents([index * 3 + view])
            assert deviation is not None
            torch.testing.assert_close(mode, posterior.mean, atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(deviation, torch.exp(0.5 * posterior.logvar), atol=1e-5, rtol=1e-4)
            name, inputs = cache.inputs(index * 3 + view)
            assert name == row.id and str(inputs) == str(dict(row.inputs)) and inputs["semantic"].dtype == np.uint8


def test_batches_are_the_same_as_from_pictures(codec: KLCodec, tmp_path: Path) -> None:
    cache = latent_cache(Squares(), cached(), codec, tmp_path)
    names = frozenset({"text", "semantic"})
    kept = Batches(Squares(), cached(), seed=4, names=names, cache=cache).at(3)[0]
    read = Batches(Squares(), cached(), seed=4, names=names).at(3)[0]
    assert kept.images is None and kept.latents is not None and read.images is not None
    assert kept.ids == read.ids and kept.draws == read.draws and str(kept.inputs) == str(read.inputs)
    with torch.no_grad():
        torch.testing.assert_close(kept.latents, codec.encode(read.images), atol=1e-6, rtol=1e-5)


def test_views_are_drawn_evenly_and_again_the_same(codec: KLCodec, tmp_path: Path) -> None:
    rule = cached(fit="random-crop", batch=10, cache={"views": 2})
    cache = latent_cache(Squares(), rule, codec, tmp_path)
    batches = Batches(Squares(), rule, seed=4, cache=cache)
    latents = torch.cat([cache.latents([row])[0] for row in range(20)])
    met = []
    for step in range(20):
        batch = batches.at(step)[0]
        assert batch.latents is not None
        met += [int((latents - row).abs().flatten(1).sum(1).argmin()) % 2 for row in batch.latents]
    # 200 fair draws: 60 is six standard deviations away
    assert 60 < sum(met) < 140
    again, first = batches.at(3)[0].latents, Batches(Squares(), rule, seed=4, cache=cache).at(3)[0].latents
    assert again is not None and first is not None and torch.equal(again, first)


@pytest.mark.parametrize("kind", [VQCodec, IdentityCodec])
def test_codecs_without_noise_have_no_deviation(kind: type, tmp_path: Path) -> None:
    config = {**TINY, "codebook_size": 8} if kind is VQCodec else {}
    cache = latent_cache(Squares(), cached(), kind(kind.Config.of(config)), tmp_path)  # type: ignore[attr-defined]
    assert cache.latents([0, 3])[1] is None and not (tmp_path / "kept/latents/deviation.npy").exists()


def test_the_mode_alone_and_half_the_bytes(codec: KLCodec, tmp_path: Path) -> None:
    whole = latent_cache(Squares(), cached(), codec, tmp_path).latents([5])[0]
    mode, deviation = latent_cache(
        Squares(), cached(cache={"dtype": "float16", "deviation": False}), codec, tmp_path
    ).latents([5])
    assert deviation is None and mode.dtype == torch.float32
    torch.testing.assert_close(mode, whole, atol=1e-3, rtol=1e-3)  # float16 has 11 bits
    assert (tmp_path / "kept/latents/mode.npy").stat().st_size == 128 + 10 * 2 * 8 * 8 * 2


@pytest.fixture
def counting() -> Counting:
    torch.manual_seed(0)
    return Counting(KLCodec.Config.of({**TINY}))


def test_a_cache_is_used_again_only_for_the_same(counting: Counting, tmp_path: Path) -> None:
    latent_cache(Squares(), cached(), counting, tmp_path)
    counting.seen, said = 0, Said()
    latent_cache(Squares(), cached(), counting, tmp_path, say=said)
    assert counting.seen == 0 and not said, "nothing is encoded twice"

    def rebuilt(why: str, rule: DataSection, data: Dataset) -> None:
        said = Said()
        cache = latent_cache(data, rule, counting, tmp_path, say=said)
        assert f"out of date ({why} changed)" in said[0]
        assert len(cache) == len(data)
        assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["latents", "latents.lock"]

    rebuilt("size", cached(size=[8, 8]), Squares())
    rebuilt("size, fit", cached(fit="crop"), Squares())
    rebuilt("data, fit", cached(), Squares(9))
    with torch.no_grad():
        counting.encoder.conv_in.weight[0, 0, 0, 0] += 1e-3
    rebuilt("codec", cached(), Squares(9))


@pytest.mark.parametrize("fatal", [1, 4, 9])
@pytest.mark.parametrize("killed", [False, True])
def test_an_interrupted_build_goes_on(
    counting: Counting, tmp_path: Path, fatal: int, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it was killed it says nothing at its end: what it noted every four rows is what it goes on from."""
    whole = latent_cache(Squares(), cached(), counting, tmp_path / "whole")
    if killed:
        monkeypatch.setattr(cache_rows, "SAVED_EVERY", 4)
        leave = cache_rows.Writer.__exit__
        monkeypatch.setattr(cache_rows.Writer, "__exit__", lambda self, *_: leave(self, None, None, None))
    counting.seen, counting.fatal = 0, fatal
    with pytest.raises(KeyboardInterrupt):
        latent_cache(Squares(), cached(), counting, tmp_path)
    assert not (tmp_path / "kept/latents").exists(), "an incomplete cache is not in its place"
    counting.seen, counting.fatal, said = 0, None, Said()
    resumed = latent_cache(Squares(), cached(), counting, tmp_path, say=said)
    # batches of four, and one picture looked at for its shape
    assert f"encoding {10 - 4 * ((fatal - 1) // 4)} of 10" in said[0]
    assert torch.equal(whole.latents(range(10))[0], resumed.latents(range(10))[0])
    assert [str(whole.inputs(i)) for i in range(10)] == [str(resumed.inputs(i)) for i in range(10)]


def test_leftovers_of_another_build_are_not_used(counting: Counting, tmp_path: Path) -> None:
    latent_cache(Squares(), cached(), counting, tmp_path)
    done = tmp_path / "kept/latents"
    done.rename(tmp_path / "kept/latents.building")
    said = Said()
    latent_cache(Squares(9), cached(), counting, tmp_path, say=said)
    assert "encoding 9 of 9" in said[0]
    # complete, and stopped just before it took its place
    done.rename(tmp_path / "kept/latents.building")
    counting.seen = 0
    assert len(latent_cache(Squares(9), cached(), counting, tmp_path)) == 9 and counting.seen == 0
    (done / "cache.json").write_text("{")
    assert len(latent_cache(Squares(9), cached(), counting, tmp_path)) == 9 and counting.seen > 0


@pytest.mark.parametrize("name", ["mode.npy", "rows.jsonl", "rows.npy"])
def test_a_cache_that_was_damaged_is_built_anew(name: str, counting: Counting, tmp_path: Path) -> None:
    whole = latent_cache(Squares(), cached(), counting, tmp_path).latents(range(10))[0].clone()
    path = tmp_path / "kept/latents" / name
    good = path.read_bytes()
    for bad in (good[:-1] + bytes([good[-1] ^ 1]), good[:-3], None):
        path.unlink()
        path.write_bytes(bad) if bad is not None else path.mkdir()
        counting.seen, said = 0, Said()
        again = latent_cache(Squares(), cached(), counting, tmp_path, say=said)
        assert counting.seen and name in said[0]
        assert torch.equal(again.latents(range(10))[0], whole) and path.read_bytes() == good
    described = json.loads((path.parent / "cache.json").read_text())
    del described["files"]  # as it was before there were sums
    (path.parent / "cache.json").write_text(json.dumps(described))
    counting.seen = 0
    latent_cache(Squares(), cached(), counting, tmp_path)
    assert counting.seen == 0


def test_damaged_samples(codec: KLCodec, tmp_path: Path) -> None:
    data = Squares(broken=frozenset({0, 4, 9}))
    with pytest.raises(InputError, match=r"0\.png: damaged on purpose"):
        latent_cache(data, cached(), codec, tmp_path)
    rule = cached(damaged="skip", batch=10)
    cache = latent_cache(data, rule, codec, tmp_path)
    batches = Batches(data, rule, seed=0, cache=cache)
    kept = batches.at(0)[0]
    read = Batches(data, rule, seed=0).at(0)[0]
    assert kept.ids == read.ids and sorted(kept.ids) == sorted(
        [*(f"{i}.png" for i in range(1, 9) if i != 4), *("1.png", "5.png", "1.png")]
    )
    assert batches.report.skipped == 4 and set(batches.report.damaged) == {"0.png", "4.png", "9.png"}
    assert kept.latents is not None and read.images is not None
    with torch.no_grad():
        torch.testing.assert_close(kept.latents, codec.encode(read.images), atol=1e-6, rtol=1e-5)


class Odd(Dataset):
    """Inputs of any kind."""

    geometry: Mapping[str, Geometry] = {"a": "none", "m": "map"}

    def __init__(self, **inputs: Any) -> None:
        self.given = inputs

    def __len__(self) -> int:
        return 2

    def id(self, index: int) -> str:
        return f"odd/{index}\n\u2028ü"

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.id(index), np.zeros((16, 16, 3), np.uint8), self.given if index else {})


def test_inputs_come_back_as_they_were(codec: KLCodec, tmp_path: Path) -> None:
    labels = np.full((16, 16), 40000)
    given = {"a": ["ü\n\u2028", 1, 2.5, None, True, {"b": np.int64(3), "c": np.float32(0.5)}], "m": labels}
    data = Odd(**given)
    cache = latent_cache(data, cached(), codec, tmp_path)
    assert cache.inputs(0) == (data.id(0), {})
    name, inputs = cache.inputs(1)
    assert name == data.id(1) and np.array_equal(inputs["m"], labels)
    assert inputs["a"] == ["ü\n\u2028", 1, 2.5, None, True, {"b": 3, "c": 0.5}]
    with pytest.raises(InputError, match="a Tensor cannot be stored"):
        latent_cache(Odd(a=torch.zeros(3)), cached(), codec, tmp_path / "tensor")
    with pytest.raises(InputError, match="labels from 70000 to 70000"):
        latent_cache(Odd(m=np.full((16, 16), 70000)), cached(), codec, tmp_path / "labels")


class Nonlinear(IdentityCodec):
    """No posterior at all."""

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        return images if noise is None else images + noise**2


def test_what_cannot_be_cached_is_an_error(tmp_path: Path, codec: KLCodec) -> None:
    with pytest.raises(CompositionError) as caught:
        latent_cache(Squares(), cached(), Nonlinear(), tmp_path)
    assert caught.value.code == "compose.codec-noise"
    with pytest.raises(SpecError, match="no folder for a cache"):
        latent_cache(Squares(), section(), codec, tmp_path)
    (tmp_path / "kept/latents").mkdir(parents=True)
    (tmp_path / "kept/latents/thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds something else: 'thesis\.txt'"):
        latent_cache(Squares(), cached(), codec, tmp_path)
    assert (tmp_path / "kept/latents/thesis.txt").read_text() == "mine"


def test_the_description_is_plain_json(codec: KLCodec, tmp_path: Path) -> None:
    cache = latent_cache(Squares(), cached(), codec, tmp_path)
    assert isinstance(cache, LatentCache)
    described = json.loads((tmp_path / "kept/latents/cache.json").read_text())
    assert described["samples"] == 10 and described["maps"] == ["semantic"] and described["key"]["fit"] == "resize"


def test_a_full_disk_loses_nothing(codec: KLCodec, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk's end."""
    before = latent_cache(Squares(), cached(), codec, tmp_path).latents(range(10))[0].clone()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(RunError) as caught:
            latent_cache(Squares(9), cached(), codec, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code == "run.cannot-write" and "kept/latents" in str(caught.value.where)
    counted = Said()
    after = latent_cache(Squares(), cached(), codec, tmp_path, say=counted).latents(range(10))[0]
    assert not counted and torch.equal(before, after)
