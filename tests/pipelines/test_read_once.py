"""A load reads every file of a diffusers folder once; a vocabulary, which several readers need, is read once too."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import ldmkit_conditioners.bpe
import pytest
import tiny_diffusers as tiny
from ldmkit_conditioners.bpe import clip_vocabulary

import ldmkit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(tiny.stable_diffusion(), tmp_path_factory.mktemp("once") / "sd")


_OPENED: Counter[str] = Counter()
_WATCHED: list[str] = []


def _watch(event: str, arguments: Any) -> None:
    if event == "open" and _WATCHED and str(arguments[0]).startswith(_WATCHED[0]):
        _OPENED[str(arguments[0])[len(_WATCHED[0]) + 1 :]] += 1


sys.addaudithook(_watch)  # for good: hooks cannot be removed


def test_configs_are_read_once_and_weights_are_opened_once(folder: Path) -> None:
    _WATCHED[:] = [str(folder)]
    ldmkit.load(folder)
    _WATCHED.clear()
    configs = {name: count for name, count in _OPENED.items() if name.endswith("config.json")}
    assert {name for name in configs if "tokenizer" not in name} == {
        *("scheduler/scheduler_config.json", "text_encoder/config.json", "unet/config.json", "vae/config.json")
    }
    assert all(count == 1 for name, count in configs.items() if "tokenizer" not in name)
    weights = {name: count for name, count in _OPENED.items() if name.endswith(".safetensors")}
    # the header, and the file that tensors are read from; safetensors maps it on its own, unseen from here
    assert len(weights) == 3 and set(weights.values()) == {2}


def test_one_vocabulary_for_the_config_and_the_encoder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = ldmkit_conditioners.bpe._from_json
    monkeypatch.setattr(ldmkit_conditioners.bpe, "_from_json", lambda file: read.append(file) or real(file))
    (folder / "tokenizer" / "added_tokens.json").write_text("{}")  # contents that no test before had
    ldmkit.load(folder)
    ldmkit.load(folder)
    assert len(read) == 1


def test_a_rewritten_vocabulary_is_read_anew(tmp_path: Path, folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / "tokenizer" / name).read_bytes())
    before, config = clip_vocabulary(tmp_path, 1000), tmp_path / "tokenizer_config.json"
    kept, text = config.stat(), config.read_text()
    assert before is clip_vocabulary(tmp_path, 1000) and before is not None and before.longest == 77
    changed = text.replace('"model_max_length": 77', '"model_max_length": 66')
    assert len(changed) == len(text) and changed != text
    config.write_text(changed)
    os.utime(config, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    after = clip_vocabulary(tmp_path, 1000)
    assert after is not None and after.longest == 66


def test_a_dangling_link_is_no_absent_file(tmp_path: Path, folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / "tokenizer" / name).read_bytes())
    clip_vocabulary(tmp_path, 1000)
    (tmp_path / "special_tokens_map.json").symlink_to(tmp_path / "gone.json")
    with pytest.raises(ldmkit.SourceError, match=r"special_tokens_map\.json"):
        clip_vocabulary(tmp_path, 1000)
