"""Data in whole runs: cached latents and damaged files."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import tiny
from data_sources import lines, picture
from ldmkit_training.loop import engine as engines
from ldmkit_training.loop.engine import Engine
from ldmkit_training.loop.runfolder import MODEL


def test_training_on_cached_latents_is_the_same_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The identity codec's latents are exact in the cache, so the weights agree bit for bit."""
    cached = 'data.cache={"folder": "kept"}'
    tiny.train(tiny.denoiser_recipe(tmp_path / "one"), tmp_path)
    tiny.train(tiny.denoiser_recipe(tmp_path / "two", cached), tmp_path)
    assert "encoding 24 of 24 samples" in "".join(capsys.readouterr())
    assert (tmp_path / "kept/mode.npy").is_file()
    tiny.train(tiny.denoiser_recipe(tmp_path / "three", cached), tmp_path)
    assert "encoding" not in "".join(capsys.readouterr()), "the second run finds the latents of the first"
    weights = tiny.tensors(tmp_path / "one" / MODEL)
    tiny.assert_same(weights, tiny.tensors(tmp_path / "two" / MODEL))
    tiny.assert_same(weights, tiny.tensors(tmp_path / "three" / MODEL))


def test_a_signal_while_latents_are_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends before its first step; the next one goes on encoding."""
    overrides = ('data.cache={"folder": "kept", "batch": 8}',)
    kept = engines.Engine._cache

    def asked(self: Engine, interrupts: engines.Interrupts | None) -> object:
        signal.raise_signal(signal.SIGINT)
        return kept(self, interrupts)

    with monkeypatch.context() as patch:
        patch.setattr(engines.Engine, "_cache", asked)
        outcome = tiny.train(tiny.denoiser_recipe(tmp_path / "run", *overrides), tmp_path)
    assert outcome.stopped == "SIGINT" and outcome.step == 0 and not (tmp_path / "kept").exists()
    said: list[str] = []
    monkeypatch.setattr(Engine, "say", lambda self, text: said.append(text))
    assert tiny.train(tiny.denoiser_recipe(tmp_path / "run", *overrides), tmp_path).step == 6
    assert any("encoding 16 of 24 samples" in text for text in said)


def test_skipped_files_are_told_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        picture(tmp_path / f"in/{number}.png", (16, 16), (40 * number, 9, 9))
    (tmp_path / "in/3.png").write_bytes(b"damaged")
    lines(tmp_path / "in/metadata.jsonl", *({"file_name": f"{n}.png", "label": "lake"} for n in range(6)))
    source = 'data.train={"type": "folder", "config": {"folder": "in"}}'
    recipe = tiny.denoiser_recipe(tmp_path / "run", source, "data.damaged=skip", "data.validation=null")
    assert tiny.train(recipe, tmp_path).step == 6
    told = "".join(capsys.readouterr())
    # six steps of four rows are four epochs of six
    assert "4 damaged samples were skipped, 1 of them different" in told and "in/3.png" in told
