"""Specs, folders and calls of cascades that cannot be meant: refused by name, before anything is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cascade_parts
import pytest
import tiny_parts
import torch

import ldmkit

LOW = torch.zeros(3, 8, 8)


@pytest.fixture(scope="module")
def cascade() -> ldmkit.Cascade:
    return cascade_parts.cascade()


def refused(kind: type[ldmkit.LdmkitError], make: Any) -> ldmkit.LdmkitError:
    with pytest.raises(kind) as caught:
        make()
    return caught.value


SPECS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown stage": ({"up": {"inputs": {"low": "bse"}}}, "spec.unknown-stage", "'base'"),
    "wiring of no stage": ({"upp": {}}, "spec.unknown-stage", "base, up"),
    "circle": (
        {"base": {"inputs": {"label": "up"}}, "up": {"inputs": {"low": "base"}}},
        "spec.stage-circle",
        "'base' depends on 'up'",
    ),
    "itself": ({"up": {"inputs": {"low": "up"}}}, "spec.stage-circle", "itself"),
    "order": ({"base": {"inputs": {"label": "up"}}}, "spec.stage-order", "comes after"),
    "start of a later stage": ({"base": {"start": {"stage": "up"}}}, "spec.stage-order", "stages.base.start.stage"),
    "misspelt": ({"up": {"input": {"low": "base"}}}, "spec.unknown-key", "inputs"),
    "no such handover": ({"up": {"inputs": {"low": "base.latent"}}}, "spec.handover", "base.latents"),
    "unknown input": ({"up": {"inputs": {"lwo": "base"}}}, "compose.unknown-input", "'low'"),
    "wrong kind": ({"up": {"inputs": {"label": "base"}}}, "compose.wrong-handover", "[3, 8, 8]"),
    "no part of that name": (
        {"up": {"shares": {"conditioners.txt": "base.conditioners.txt"}}},
        "spec.unknown-share",
        "txt",
    ),
    "shared as something else": ({"up": {"shares": {"codec": "base.denoiser"}}}, "spec.unknown-share", "base.codec"),
    "shared, and another": ({"up": {"shares": {"denoiser": "base.denoiser"}}}, "spec.share-differs", "'up'"),
    "strength": ({"up": {"start": {"stage": "base", "strength": 0}}}, "spec.invalid", "strength"),
}


@pytest.mark.parametrize("name", SPECS)
def test_specs(cascade: ldmkit.Cascade, name: str) -> None:
    wiring, code, said = SPECS[name]
    error = refused(ldmkit.LdmkitError, lambda: ldmkit.Cascade.of(dict(cascade.stages), wiring))
    assert error.code == code and said in str(error)


def test_latents_of_another_shape() -> None:
    """Two latent channels are no picture."""
    base = tiny_parts.class_pipeline("kl")
    wiring = {"up": {"inputs": {"low": "base.latents"}}}
    error = refused(
        ldmkit.CompositionError, lambda: ldmkit.Cascade.of({"base": base, "up": cascade_parts.second()}, wiring)
    )
    assert error.code == "compose.wrong-handover" and "[2, 4, 4]" in str(error)


CALLS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no inputs": ({"inputs": None}, "input.not-a-mapping", "label"),
    "unknown input": ({"inputs": {"lable": 1}}, "input.unknown-input", "'label'"),
    "made by a stage": ({"inputs": {"label": 1, "low": LOW}}, "input.bound-input", "first='up'"),
    "made by a stage, in its options": ({"stages": {"up": {"inputs": {"low": LOW}}}}, "input.bound-input", "'up'"),
    "left out": ({"first": "up"}, "input.missing-condition", "'low' comes from stage 'base'"),
    "of a stage that is not run": ({"inputs": {"label": 1, "low": LOW}, "last": "base"}, "input.unknown-input", "low"),
    "unknown first": ({"first": "bas"}, "input.unknown-stage", "'base'"),
    "nothing to run": ({"first": "up", "last": "base"}, "input.stage-range", "'base' runs before 'up'"),
    "unknown stage": ({"stages": {"pu": {}}}, "input.unknown-stage", "base"),
    "idle stage": ({"last": "base", "stages": {"up": {"steps": 2}}}, "input.stage-idle", "does not run"),
    "size": ({"size": 8}, "input.stage-option", "stages="),
    "start": ({"start": LOW}, "input.stage-option", "stages="),
    "unknown argument": ({"stpes": 3}, "input.unknown-argument", "'steps'"),
    "of another library": ({"num_inference_steps": 3}, "input.unknown-argument", "steps"),
    "unknown argument of a stage": ({"stages": {"up": {"stpes": 3}}}, "input.unknown-argument", "stage 'up'"),
    "steps of a stage": ({"stages": {"up": {"steps": 0}}}, "input.steps-range", "stage 'up'"),
    "sampler of a stage": ({"stages": {"base": {"sampler": "elur"}}}, "plugin.unknown", "stage 'base'"),
    "size of a stage": ({"stages": {"up": {"size": 16}}}, "input.size-mismatch", "stage 'up'"),
    "too much": ({"stages": {"base": {"size": 100_000}}}, "input.too-much-work", "stage 'base'"),
    "seeds": ({"stages": {"up": {"seeds": [1, 2]}}}, "input.batch-mismatch", "stage 'up'"),
    "value of an input": ({"inputs": {"label": 77}}, "input.label-range", "stage 'base'"),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(cascade: ldmkit.Cascade, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options, code, said = CALLS[name]
    monkeypatch.setattr(type(cascade.stages["base"].denoiser), "forward", None)  # nothing gets that far
    error = refused(ldmkit.LdmkitError, lambda: cascade(**{"inputs": {"label": 1}, **options}))
    assert error.code == code and said in str(error)


def test_a_required_input_that_nothing_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    base, up = tiny_parts.class_pipeline(), cascade_parts.second(size=(8, 8))
    loose = ldmkit.Cascade.of({"base": base, "up": up})
    assert list(loose.inputs) == ["label", "low"]
    monkeypatch.setattr(type(base.denoiser), "forward", None)
    error = refused(ldmkit.InputError, lambda: loose({"label": 1}))
    assert error.code == "input.missing-condition" and "'low'" in str(error) and "stage 'up'" in str(error)


def test_numbers_that_overflow_name_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    cascade = cascade_parts.cascade()
    weight = next(cascade.stages["up"].denoiser.parameters())
    weight.data.fill_(float("nan"))
    error = refused(ldmkit.RunError, lambda: cascade({"label": 1}))
    assert "stage 'up'" in str(error)


def edited(folder: Path, change: Any) -> None:
    path = folder / "cascade.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    data.pop("digest", None)
    path.write_text(json.dumps(data), encoding="utf-8")


def renamed(folder: Path) -> None:
    path = folder / "cascade.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"low"', '"lo"'), encoding="utf-8")


def exchanged(folder: Path) -> None:
    cascade_parts.second(steps=7).save(folder / "other")
    (folder / "up").rename(folder / "old")
    (folder / "other").rename(folder / "up")


FOLDERS: dict[str, tuple[Any, str]] = {
    "newer": (lambda f: edited(f, lambda d: d.update(version=2)), "spec.newer-version"),
    "unknown key": (lambda f: edited(f, lambda d: d.update(stags={})), "spec.unknown-key"),
    "no stages": (lambda f: edited(f, lambda d: d.update(stages={})), "spec.invalid"),
    "a name that leaves the folder": (lambda f: edited(f, lambda d: d.update(stages={"../up": {}})), "spec.name"),
    "edited": (renamed, "source.spec-edited"),
    "a stage of another model": (exchanged, "source.digest-differs"),
    "another model, and no digests": (
        lambda f: (exchanged(f), edited(f, lambda d: d.pop("files"))),
        "source.other-stage",
    ),
    "a stage is gone": (lambda f: (f / "up").rename(f / "old"), "source.not-found"),
    "a flipped bit": (lambda f: flipped(f / "up" / "denoiser.safetensors"), "source.digest-differs"),
}


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(cascade: ldmkit.Cascade, tmp_path: Path, name: str) -> None:
    spoil, code = FOLDERS[name]
    folder = cascade.save(tmp_path / "model")
    spoil(folder)
    assert refused(ldmkit.LdmkitError, lambda: ldmkit.Cascade.load(folder)).code == code


def test_a_folder_of_another_kind(cascade: ldmkit.Cascade, tmp_path: Path) -> None:
    folder = cascade.save(tmp_path / "model")
    for take in (ldmkit.load, ldmkit.Pipeline.load, ldmkit.load_codec, ldmkit.load_adapter):
        error = refused(ldmkit.SourceError, lambda take=take: take(folder))
        assert error.code == "source.cascade" and "base, up" in str(error)
    assert refused(ldmkit.SourceError, lambda: ldmkit.Cascade.load(folder / "base")).code == "source.no-cascade"
    assert isinstance(ldmkit.load(folder / "base"), ldmkit.Pipeline)
    error = refused(ldmkit.InputError, lambda: ldmkit.load(folder, ema=True))
    assert error.code == "input.not-for-native"


def test_saving_loses_nothing(cascade: ldmkit.Cascade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cascade.save(tmp_path / "model")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years", encoding="utf-8")
    assert refused(ldmkit.InputError, lambda: cascade.save(tmp_path / "mine")).code == "input.folder-taken"
    (folder / "notes").mkdir()
    assert refused(ldmkit.InputError, lambda: cascade.save(folder)).code == "input.folder-taken"
    (folder / "notes").rmdir()
    monkeypatch.setattr(
        "ldmkit.models.cascade_files.write_spec", lambda *given: (_ for _ in ()).throw(OSError(28, "full"))
    )
    assert refused(ldmkit.RunError, lambda: cascade.save(folder)).code == "run.cannot-write"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".ldmkit")] == []
