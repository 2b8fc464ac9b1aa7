"""Folders of DeepFloyd IF's stages: what makes a cascade, what is shared, and what is refused by name."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import deepfloyd_models as models
import pytest
import torch

import ldmkit


def changed(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **fields}), encoding="utf-8")


def test_a_second_stage_alone_takes_tokens(tmp_path: Path) -> None:
    pipe = ldmkit.load(models.second(tmp_path / "IF-II"))
    given = pipe.spec.conditioners["context"].config
    assert (given["kind"], given["dim"]) == ("tokens", models.WIDTH)
    assert pipe.spec.conditioners["low"].config["enlarge"] == 4


def test_the_second_and_third_stage_suffice(tmp_path: Path) -> None:
    models.second(tmp_path / "a", text=True), models.third(tmp_path / "b")
    cascade = ldmkit.Cascade.load(tmp_path)
    assert list(cascade.stages) == ["up", "large"]
    low = torch.zeros(3, 8, 8)
    out = cascade({"text": "red", "low": low}, seeds=[1], stages={"up": {"steps": 3}, "large": {"steps": 3}})
    assert out.images.shape[-2:] == (64, 64)


def test_equal_encoders_are_one_and_others_are_not(tmp_path: Path) -> None:
    models.first(tmp_path / "I"), models.second(tmp_path / "II", text=True)
    assert ldmkit.Cascade.load(tmp_path).wiring["up"].shares == {"conditioners.text": "base.conditioners.text"}
    models.encoder(seed=9).save_pretrained(tmp_path / "II" / "text_encoder")
    cascade = ldmkit.Cascade.load(tmp_path)
    assert cascade.wiring["up"].shares == {}
    assert cascade.stages["up"].conditioners["text"] is not cascade.stages["base"].conditioners["text"]


def test_a_stage_missing_between_two(tmp_path: Path) -> None:
    models.first(tmp_path / "small", text=False), models.third(tmp_path / "big")
    with pytest.raises(ldmkit.SourceError, match="'small' is its first stage and 'big' its third"):
        ldmkit.Cascade.load(tmp_path)


def test_two_folders_of_one_stage(tmp_path: Path) -> None:
    models.first(tmp_path / "M", text=False), models.first(tmp_path / "XL", text=False)
    with pytest.raises(ldmkit.SourceError, match="'M' and 'XL' are both stage 1"):
        ldmkit.Cascade.load(tmp_path)


def test_sizes_that_are_no_whole_number_of_times(tmp_path: Path) -> None:
    models.first(tmp_path / "I", text=False), models.second(tmp_path / "II", sample_size=40)
    with pytest.raises(ldmkit.SourceError, match="it draws 40 pixels from a picture of 16"):
        ldmkit.Cascade.load(tmp_path)


@pytest.mark.parametrize(("stage", "level", "fits"), [("second", 1.0, "0.999"), ("third", 0.36, "0.35")])
def test_levels_outside_the_table(stage: str, level: float, fits: str, tmp_path: Path) -> None:
    pipe, name = ldmkit.load(getattr(models, stage)(tmp_path / stage)), "low" if stage == "second" else "picture"
    text: Any = {"context": torch.zeros(4, models.WIDTH)} if stage == "second" else {"text": "red"}
    with pytest.raises(ldmkit.InputError, match=f"the noise level is {level}.*{fits}") as caught:
        pipe({**text, name: {"image": torch.zeros(3, 8, 8), "level": level}}, seeds=[1])
    assert caught.value.code == "input.level-range"


def test_another_scale_of_latents_is_not_applied(tmp_path: Path) -> None:
    folder = models.third(tmp_path / "x4")
    want = ldmkit.load(folder).spec.codec.config
    changed(folder / "vae" / "config.json", scaling_factor=0.18215)
    assert ldmkit.load(folder).spec.codec.config == want and want["scale"] == 0.08333


def test_t5_in_float16_is_warned_of(tmp_path: Path) -> None:
    text = ldmkit.load(models.first(tmp_path / "I")).conditioners["text"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text.to(dtype=torch.bfloat16)(["red"])
    with pytest.warns(ldmkit.DrawingWarning, match="float16 overflows.*bfloat16"):
        text.to(dtype=torch.float16)(["red"])


def test_the_watermark_is_told(tmp_path: Path) -> None:
    folder = models.first(tmp_path / "I", text=False)
    changed(folder / "model_index.json", watermarker=["deepfloyd_if", "IFWatermarker"])
    assert any("watermark" in note for note in ldmkit.open_source(folder).report.notes)
