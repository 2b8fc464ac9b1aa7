"""What becomes of captions when they are used: trigger words, shuffled tags, tags and captions left out, encodings."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import tiny
from data_sources import lines, opened, picture, section
from ldmkit_codecs.identity import IdentityCodec
from ldmkit_training.before.recipe import Recipe, parse_recipe
from ldmkit_training.data.batches import Batches, validation_batches
from ldmkit_training.data.cache.reading import latent_cache
from ldmkit_training.data.captions import CaptionRule
from ldmkit_training.data.section import open_data

from ldmkit import Dataset, InputError, SpecError

TAGS = "1girl, solo, red hair, smile, outdoors"


def source(tmp_path: Path, count: int = 4) -> Dataset:
    for number in range(count):
        picture(tmp_path / f"d/{number}.png", (16, 16), (number, 0, 0))
        (tmp_path / f"d/{number}.txt").write_text(TAGS)
    return opened("folder", tmp_path, folder="d", captions=".txt")


def texts(data: Dataset, steps: int, start: int = 0, **rule: Any) -> list[str]:
    made = section(captions={"text": rule}, batch=2)
    batches = islice(Batches(data, made, seed=3).steps(start), steps)
    return [row["text"] for _, [batch] in batches for row in batch.inputs]


def test_tags_are_shuffled_behind_those_that_are_kept(tmp_path: Path) -> None:
    data = source(tmp_path)
    found = texts(data, 60, shuffle=True, keep=2)
    assert len(set(found)) == 6, "3! orders"
    for text in found:
        assert text.startswith("1girl, solo, ") and sorted(text.split(", ")) == sorted(TAGS.split(", "))
    assert max(Counter(found).values()) < 40
    assert found[34:] == texts(data, 43, start=17, shuffle=True, keep=2), "resumed"


def test_tags_and_captions_are_left_out_as_often_as_said(tmp_path: Path) -> None:
    data = source(tmp_path)
    found = texts(data, 500, tag_dropout=0.25, keep=1)
    counts = Counter(tag for text in found for tag in text.split(", "))
    assert counts["1girl"] == 1000
    for tag in ("solo", "red hair", "smile", "outdoors"):
        assert abs(counts[tag] - 750) < 60  # 4.4 standard deviations
    found = texts(data, 500, dropout=0.1, prefix="sks, ")
    assert set(found) == {"", f"sks, {TAGS}"} and abs(found.count("") - 100) < 45
    assert set(texts(data, 20, tag_dropout=1.0, prefix="sks")) == {"sks"}


def test_a_trigger_word_stands_before_every_text_also_in_validation(tmp_path: Path) -> None:
    data = source(tmp_path)
    changes = {"prefix": "sks, ", "suffix": ", photo", "shuffle": True, "dropout": 0.5}
    rule = section(captions={"text": changes}, batch=2)
    held = validation_batches(data, rule, None)
    assert {row["text"] for batch in held for row in batch.inputs} == {f"sks, {TAGS}, photo"}


def test_the_same_texts_for_several_processes_readers_and_cached_latents(tmp_path: Path) -> None:
    data = source(tmp_path)
    rule = {"captions": {"text": {"shuffle": True, "tag_dropout": 0.3, "prefix": "sks, "}}, "batch": 4}
    whole = [row["text"] for row in Batches(data, section(**rule), seed=1).at(7)[0].inputs]
    halves = [Batches(data, section(**rule), seed=1, rank=r, world=2).at(7)[0].inputs for r in (0, 1)]
    assert whole == [row["text"] for half in halves for row in half]
    assert whole == [row["text"] for row in Batches(data, section(workers=2, **rule), seed=1).at(7)[0].inputs]
    kept = section(cache={"folder": "kept"}, **rule)
    cache = latent_cache(data, kept, IdentityCodec(), tmp_path)
    assert whole == [row["text"] for row in Batches(data, kept, seed=1, cache=cache).at(7)[0].inputs]
    assert len(set(whole)) > 1


def test_alternatives_are_drawn_and_then_changed(tmp_path: Path) -> None:
    picture(tmp_path / "d/0.png", (16, 16))
    lines(tmp_path / "d/metadata.jsonl", {"file_name": "0.png", "text": ["a, b", "c, d"]})
    found = texts(opened("folder", tmp_path, folder="d"), 60, shuffle=True)
    assert set(found) == {"a, b", "b, a", "c, d", "d, c"}


@pytest.mark.parametrize(("separator", "text", "wanted"), [
    (",", "a,b ,  c,,", "a, b, c"), (";", "a;b", "a; b"), ("|||", "a|||b", "a|||b"), (" ", "a  b", "a b"),
])  # fmt: skip
def test_separators(separator: str, text: str, wanted: str) -> None:
    rule = CaptionRule(separator=separator, shuffle=True, keep=9)
    assert rule.applied(text, 1, 2, 3) == wanted and rule.applied(text) == text


WRONG = [{"shufle": True}, {"tag_dropout": 1.5}, {}, {"keep": 2}, {"separator": "", "shuffle": True}]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_rule_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        section(captions={"text": wrong})


def test_a_rule_for_an_input_that_is_not_there_is_refused(tmp_path: Path) -> None:
    source(tmp_path)
    train = {"type": "folder", "config": {"folder": "d", "captions": ".txt"}}
    with pytest.raises(SpecError, match="no input 'caption'"):
        open_data(section(train=train, captions={"caption": {"prefix": "x"}}), tmp_path)


def test_texts_of_other_encodings_are_read_where_they_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "d/0.png", (16, 16))
    for encoding, data in (("cp1252", "Käse „x“".encode("cp1252")), ("utf-16", "Käse „x“\r\n".encode("utf-16")),
                           ("utf-8", b"\xef\xbb\xbf" + "Käse „x“\r".encode())):  # fmt: skip
        (tmp_path / "d/0.txt").write_bytes(data)
        read = opened("folder", tmp_path, folder="d", captions=".txt", encoding=encoding)
        assert read.inputs(0) == {"text": "Käse „x“"}
    (tmp_path / "d/0.txt").write_bytes("Käse".encode("latin-1"))
    with pytest.raises(InputError, match=r"not UTF-8 text, but another encoding .*`encoding`"):
        opened("folder", tmp_path, folder="d", captions=".txt").inputs(0)
    with pytest.raises(SpecError, match="no encoding of texts 'utf8x'"):
        opened("folder", tmp_path, folder="d", encoding="utf8x")
    (tmp_path / "d/0.txt").unlink()
    (tmp_path / "d/metadata.csv").write_bytes("file_name,text\n0.png,Käse\n".encode("latin-1"))
    assert opened("folder", tmp_path, folder="d", encoding="latin-1").inputs(0)["text"] == "Käse"


def test_pictures_without_a_caption_get_the_one_that_is_said(tmp_path: Path) -> None:
    data = source(tmp_path)
    (tmp_path / "d/1.txt").unlink()
    data = opened("folder", tmp_path, folder="d", captions=".txt", caption="a photo of sks dog")
    assert [data.inputs(i)["text"] for i in range(3)] == [TAGS, "a photo of sks dog", TAGS]
    assert any("1 picture(s) have no caption, and get one: '1.png'" in note for note in data.notes)
    alone = opened("folder", tmp_path, folder="d", caption="a photo of sks dog")
    assert alone.geometry == {"text": "none"} and alone.inputs(3) == {"text": "a photo of sks dog"}


def recipe(tmp_path: Path, *overrides: str) -> Recipe:
    source(tmp_path)
    data = tiny.denoiser_data(tmp_path / "run", "data.validation=null", "validation=null", "steps=2", *overrides)
    data["data"]["train"] = {"type": "folder", "config": {"folder": str(tmp_path / "d"), "captions": ".txt"}}
    return parse_recipe(data)


def test_rules_without_effect_are_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="data.captions.text: the model does not read it"):
        tiny.train(recipe(tmp_path, "data.captions={text: {shuffle: true}}"), tmp_path)
    with pytest.warns(UserWarning, match="data.captions.text.keep: neither"):
        keys = ("data.captions={text: {prefix: x, keep: 1}}", "data.inputs={text: label}", "objective.dropout.rates={}")
        named = f"model.conditioners.label.config={{n_classes: 2, dim: 8, names: ['x{TAGS}', other]}}"
        tiny.train(recipe(tmp_path, *keys, named), tmp_path, fresh=True)
