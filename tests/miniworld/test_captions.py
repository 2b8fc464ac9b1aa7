"""Captions: every fact is true of the picture, said in the text, and every word is in the vocabulary."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from ldmkit_conditioners.ldm_text import LdmText, LdmTextConfig
from ldmkit_miniworld.captions import CLEAR, HOURS, LIGHTS, NOUNS, NUMBERS, PLACES, VIEWS, words
from ldmkit_miniworld.data import MiniworldData
from ldmkit_miniworld.dice import Dice
from ldmkit_miniworld.facts import Asked
from ldmkit_miniworld.pieces import SPECIAL, VOCABULARY, pieces
from ldmkit_miniworld.scene import Scene
from ldmkit_miniworld.world import World

from ldmkit.contracts.data import Sample
from ldmkit.errors import SpecError
from ldmkit.plugins.kinds import GROUPS

PIXEL = 2 / 64


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    world = World(64)
    return [world.scene("captions", index) for index in range(2000)]


def test_words_are_those_of_the_vocabulary_and_all_occur(scenes: list[Scene]) -> None:
    used = {word for scene in scenes for word in scene.caption.replace(",", "").split()}
    assert used == set(words())
    assert len(words()) <= 150 and all(re.fullmatch("[a-z]+", word) for word in words())


def test_the_file_of_pieces_is_the_grammar_s() -> None:
    lines = (VOCABULARY / "vocab.txt").read_text(encoding="utf-8").split("\n")
    assert lines == [*pieces(), ""]
    assert tuple(lines[:4]) == SPECIAL and len(set(pieces())) == len(pieces())


def test_captions_fit_the_text_conditioner(scenes: list[Scene], recwarn: pytest.WarningsRecorder) -> None:
    count = len(pieces())
    config = LdmTextConfig(vocab_size=count, dim=8, layers=1, heads=1, head_dim=8, max_length=32, start=2, end=3)
    text = LdmText(config)
    text.load_assets(VOCABULARY)
    lines = pieces()
    rows = text.ids([scene.caption for scene in scenes])
    assert rows.shape == (2000, 32) and not len(recwarn)
    for scene, row in zip(scenes, rows.tolist(), strict=True):
        said = [lines[i] for i in row if i not in (0, 2, 3)]
        assert said == re.findall(r"[a-z]+|,", scene.caption)
    spelt = [lines[i] for i in text.ids(["a zebra 7"])[0].tolist() if i]
    assert spelt == ["[CLS]", "a", "z", "##e", "##b", "##r", "##a", "7", "[SEP]"]


def test_counts_and_colours_are_exact(scenes: list[Scene]) -> None:
    for scene in scenes:
        for asked in scene.caption_facts.objects:
            same = [i for i in scene.items if i.kind == asked.kind and asked.colour in (None, i.colour)]
            assert len(same) == asked.count > 0, scene.caption


def test_the_text_says_the_facts_and_no_others(scenes: list[Scene]) -> None:
    for scene in scenes:
        facts, text = scene.caption_facts, scene.caption
        assert facts.label in (None, scene.label) and facts.time in (None, scene.time)
        for told, table in ((facts.label, (PLACES, VIEWS)), (facts.time, (HOURS,))):
            for name in table[0]:
                said = any(_has(text, phrase) for phrases in table for phrase in phrases[name])
                assert said == (name == told), text
        assert sorted(_objects(text)) == sorted(map(_key, facts.objects)), text
        said = re.findall(r"(left of|right of|above|below) (?:a|one|two|three|four|the) ", text)
        assert said == [relation.name for relation in facts.relations], text


def _has(text: str, phrase: str) -> bool:
    return re.search(rf"(?<!\S){phrase}(?=,|\s|$)", text) is not None


def _key(asked: Asked) -> tuple[str, str, int]:
    return asked.kind, asked.colour or "", asked.count


def _objects(text: str) -> list[tuple[str, str, int]]:
    """A reader of captions that knows nothing of how they are made but their words."""
    found = []
    nouns = {form: kind for kind, forms in NOUNS.items() for pair in forms for form in pair}
    names = "|".join(sorted(nouns, key=len, reverse=True))
    number, colour = "|".join([*NUMBERS[1:], "one"]), "red|blue|yellow|white|green"
    clothes = rf"(?: (?:dressed in|in|wearing) (?P<worn>{colour}))?"
    pattern = rf"\b(?P<number>{number}) (?:(?P<colour>{colour}) )?(?P<noun>{names})\b{clothes}"
    for match in re.finditer(pattern, text):
        count = 1 if match["number"] == "one" else NUMBERS.index(match["number"])
        found.append((nouns[match["noun"]], match["colour"] or match["worn"] or "", count))
    found += [(kind, "", 1) for kind, phrases in LIGHTS.items() if any(_has(text, phrase) for phrase in phrases)]
    return found


def test_relations_hold_between_the_boxes_of_the_picture() -> None:
    world, checked = World(64), set()
    for index in range(220):
        picture = world.sample("relations", index)
        facts = picture.scene.caption_facts
        for relation in facts.relations:
            a = _centres(picture.layout, facts.objects[relation.subject])
            b = _centres(picture.layout, facts.objects[relation.target])
            # The boxes are what is visible, in whole pixels: their centres may differ a little from the objects'.
            slack = CLEAR - PIXEL
            gaps = {
                "left of": b[:, 0].min() - a[:, 0].max(),
                "right of": a[:, 0].min() - b[:, 0].max(),
                "above": b[:, 1].min() - a[:, 1].max(),
                "below": a[:, 1].min() - b[:, 1].max(),
            }
            assert gaps[relation.name] > slack, (picture.id, picture.caption)
            checked.add(relation.name)
    assert checked == {"left of", "right of", "above", "below"}


def _centres(layout: list[dict[str, object]], asked: Asked) -> np.ndarray:
    wanted = f"{asked.colour} {asked.kind}" if asked.colour else asked.kind
    boxes = [o["box"] for o in layout if o["label"] == wanted or str(o["label"]).endswith(" " + wanted)]
    corners = np.array(boxes, dtype=float)
    return (corners[:, :2] + corners[:, 2:]) / 2


def test_captions_vary(scenes: list[Scene]) -> None:
    assert len({scene.caption for scene in scenes}) > 1900
    assert {len(scene.caption_facts.objects) for scene in scenes} == {0, 1, 2, 3, 4}
    assert 0.15 < np.mean([bool(scene.caption_facts.relations) for scene in scenes]) < 0.5


def test_dice_are_fair_and_named() -> None:
    dice = Dice("a name")
    drawn = [dice.pick("abc", (1, 2, 1)) for _ in range(4000)]
    assert abs(drawn.count("b") / 4000 - 0.5) < 0.04 and Dice("x").unit() == Dice("x").unit() != Dice("y").unit()
    assert {dice.integer(2, 4) for _ in range(100)} == {2, 3, 4}


def test_the_world_is_a_source_of_data() -> None:
    data = MiniworldData(split="validation", count=5, size=64, start=40).open(Path())
    sample, picture = data[2], World(64).sample("validation", 42)
    assert isinstance(sample, Sample) and sample.id == data.id(2) == "validation/42" == picture.id
    assert set(sample.inputs) == set(data.geometry) == {"text", "label", "layout", "semantic"}
    assert sample.inputs["text"] == picture.caption and np.array_equal(sample.image, picture.image)
    assert len(data) == 5
    with pytest.raises(IndexError):
        data[5]
    again, other = (MiniworldData(split="validation", count=5, start=start).open(Path()) for start in (40, 41))
    assert again.fingerprint == data.fingerprint != other.fingerprint


def test_sizes_that_cannot_be_drawn_are_refused_by_the_recipe() -> None:
    with pytest.raises(SpecError, match="multiple of 32"):
        MiniworldData(size=70)
    assert GROUPS["data"] == "ldmkit.data"
