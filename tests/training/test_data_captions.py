"""Captions in files beside pictures, and several captions of one picture."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from data_sources import coco, lines, opened, picture, section
from ldmkit_codecs.identity import IdentityCodec
from ldmkit_training.data.batches import Batches, validation_batches
from ldmkit_training.data.cache.reading import latent_cache
from ldmkit_training.data.choosing import each_of
from ldmkit_training.loop.engine import Engine

from ldmkit.errors import InputError, LdmkitError, SpecError


def beside(folder: Path, **texts: bytes) -> Path:
    for name, text in texts.items():
        picture(folder / f"{name}.png", (16, 16))
        (folder / f"{name}.txt").write_bytes(text)
    return folder


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"a red house", "a red house"), (b"\xef\xbb\xbfa red house\r\n", "a red house"), (b"  a, b \n\n", "a, b"),
        ("grün \u2028 ♥".encode(), "grün \u2028 ♥"), (b"x\x0by", "x\x0by"), (b"\r\rold mac\r", "old mac"),
    ],
)  # fmt: skip
def test_captions_as_programs_write_them(tmp_path: Path, written: bytes, read: str) -> None:
    """Windows' byte-order mark and line ends; what some libraries take for line ends, and are none."""
    data = opened("folder", beside(tmp_path, a=written), folder=".", captions=".txt")
    assert data[0].inputs == data.inputs(0) == data.known(0) == {"text": read} and data.geometry == {"text": "none"}
    assert not data.notes


def test_what_is_not_there_is_counted_and_named(tmp_path: Path) -> None:
    beside(tmp_path, a=b"x", b=b"", c=b"y")
    (tmp_path / "c.txt").rename(tmp_path / "other.TXT")
    (tmp_path / "a.caption").write_text("not asked for")
    data = opened("folder", tmp_path, folder=".", captions=".txt", missing="allow")
    assert [data.inputs(i) for i in range(3)] == [{"text": "x"}, {}, {}]
    said = "; ".join(data.notes)
    for words in ("have no .txt: 'c.png'", "have an empty .txt: 'b.png'", "1 .txt without a picture", "1 .caption"):
        assert words in said
    plain = opened("folder", tmp_path, folder=".")
    assert plain.geometry == {} and "1 .caption, 2 .txt beside pictures not read" in "; ".join(plain.notes)


def test_endings_in_both_cases_and_behind_the_pictures_own(tmp_path: Path) -> None:
    picture(tmp_path / "A.PNG"), picture(tmp_path / "sub/v1.0 b.jpeg")
    (tmp_path / "A.Caption").write_text("one")
    (tmp_path / "sub/v1.0 b.jpeg.caption").write_text("two")
    data = opened("folder", tmp_path, folder=".", captions=".caption")
    assert [data.inputs(i)["text"] for i in range(2)] == ["one", "two"]


def test_a_caption_of_two_pictures_or_two_of_one(tmp_path: Path) -> None:
    beside(tmp_path, a=b"x")
    picture(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="could be the caption of"):
        opened("folder", tmp_path, folder=".", captions=".txt")
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "a.TXT").write_text("y")
    with pytest.raises(InputError) as caught:
        opened("folder", tmp_path, folder=".", captions=".txt")
    assert caught.value.code == "input.file-twice"
    (tmp_path / "a.TXT").unlink()
    lines(tmp_path / "metadata.jsonl", {"file_name": "a.png", "text": "z"})
    with pytest.raises(SpecError) as both:
        opened("folder", tmp_path, folder=".", captions=".txt")
    assert both.value.code == "spec.input-twice"


@pytest.mark.parametrize(("rule", "read"), [("each", ["one", "two"]), ("first", "one"), ("whole", "one\n\ntwo")])
def test_several_lines(tmp_path: Path, rule: str, read: Any) -> None:
    data = opened("folder", beside(tmp_path, a=b"one\r\n\r\ntwo\r\n"), folder=".", captions=".txt", lines=rule)
    assert data.inputs(0)["text"] == read and data.choices == {"text"}
    assert any("the first is read: 'a.png'" in note for note in data.notes) == (rule == "first")


def several(tmp_path: Path) -> Any:
    for number in range(4):
        picture(tmp_path / f"{number}.png", (16, 16))
    texts = [{"file_name": f"{n}.png", "text": [f"{n} a", f"{n} b", f"{n} c"] if n else "0"} for n in range(4)]
    lines(tmp_path / "metadata.jsonl", *texts)
    return opened("folder", tmp_path, folder=".")


def test_one_of_several_captions_is_drawn_anew_in_every_epoch(tmp_path: Path) -> None:
    data, rule = several(tmp_path), section(batch=4, size=[16, 16])
    met: dict[str, Counter[str]] = {f"{n}.png": Counter() for n in range(4)}
    batches = Batches(data, rule, seed=1)
    for step in range(90):
        [batch] = batches.at(step)
        for name, inputs in zip(batch.ids, batch.inputs, strict=True):
            met[name][inputs["text"]] += 1
    assert met["0.png"] == {"0": 90}
    # 90 draws of three: 10 of one is 4.5 standard deviations off
    assert all(len(met[f"{n}.png"]) == 3 and min(met[f"{n}.png"].values()) > 10 for n in range(1, 4))
    whole = [row["text"] for row in batches.at(7)[0].inputs]
    assert whole == [row["text"] for row in Batches(data, rule, seed=1).at(7)[0].inputs], "resumed"
    halves = [Batches(data, rule, seed=1, rank=r, world=2).at(7)[0].inputs for r in (0, 1)]
    assert whole == [row["text"] for half in halves for row in half], "by two processes"
    ahead = Batches(data, section(batch=4, size=[16, 16], workers=2), seed=1).at(7)[0]
    assert whole == [row["text"] for row in ahead.inputs]
    kept = section(batch=4, size=[16, 16], cache={"folder": "kept"})
    cache = latent_cache(data, kept, IdentityCodec(), tmp_path)
    assert whole == [row["text"] for row in Batches(data, kept, seed=1, cache=cache).at(7)[0].inputs]
    held = validation_batches(data, rule, None)[0]
    assert [row["text"] for row in held.inputs] == ["0", "1 a", "2 a", "3 a"]


def test_every_alternative_is_parsed_before_the_first_step(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / f"d/{number}.png", (16, 16))
    rows = [{"file_name": f"{n}.png", "label": ["snow", "swamp" if n == 2 else "lake"]} for n in range(4)]
    lines(tmp_path / "d/metadata.jsonl", *rows)
    data = tiny.denoiser_data(tmp_path / "run", "validation=null", "data.validation=null", "steps=2")
    data["data"]["train"] = {"type": "folder", "config": {"folder": str(tmp_path / "d"), "choose": ["label"]}}
    with pytest.raises(InputError, match=r"1 of 4 samples.*'2.png'.*no class 'swamp'"):
        Engine(tiny.parse_recipe(data), tmp_path)
    rows[2]["label"] = ["snow", "lake"]
    lines(tmp_path / "d/metadata.jsonl", *rows)
    assert Engine(tiny.parse_recipe(data), tmp_path).run().step == 2
    assert list(each_of({"a": [1, 2], "b": 3}, {"a"})) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]


def test_a_damaged_caption_is_a_damaged_sample(tmp_path: Path) -> None:
    beside(tmp_path, a=b"x", b=b"gr\xfcn", c=b"y")
    data = opened("folder", tmp_path, folder=".", captions=".txt")
    batches = Batches(data, section(batch=3, damaged="skip"), seed=0)
    assert sorted(batches.at(0)[0].ids) == ["a.png", "c.png", "c.png"] and set(batches.report.damaged) == {"b.png"}
    for read in (data.inputs, data.known, data.__getitem__):
        with pytest.raises(LdmkitError, match=r"b\.txt: not UTF-8"):
            read(1)


def test_five_captions_of_coco(tmp_path: Path) -> None:
    """The layout of captions_val2017.json: no categories, several annotations a picture, in any order."""
    picture(tmp_path / "in/a.png"), picture(tmp_path / "in/b.png")
    content = json.loads(coco(tmp_path / "boxes.json").read_text())
    texts = [{"image_id": image, "id": 10 + i, "caption": f"{image} {i} \n"} for i, image in enumerate((7, 9, 7, 7))]
    (tmp_path / "texts.json").write_text(json.dumps({"info": {}, "images": content["images"], "annotations": texts}))
    alone = opened("coco", tmp_path, captions="texts.json", pictures="in")
    assert alone.inputs(0) == {"text": ["7 0", "7 2", "7 3"]} and alone.inputs(1) == {"text": ["9 1"]}
    both = opened("coco", tmp_path, captions="texts.json", annotations="boxes.json", pictures="in")
    assert set(both[0].inputs) == {"text", "layout"} and both.choices == {"text"}
    assert np.array_equal(both[0].image, alone[0].image)
    with pytest.raises(InputError, match="captions: FILE reads them"):
        opened("coco", tmp_path, annotations="texts.json", pictures="in")
    (tmp_path / "texts.json").write_text(json.dumps({"images": content["images"], "annotations": texts[:1]}))
    with pytest.raises(InputError, match=r"1 picture\(s\) have no caption: 'b\.png'"):
        opened("coco", tmp_path, captions="texts.json", pictures="in")
    with pytest.raises(SpecError, match="annotations, captions or both"):
        opened("coco", tmp_path, pictures="in")
