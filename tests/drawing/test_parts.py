"""Drawings of parts: of a loaded model, and those of the documentation, which name what is installed."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import tiny_parts
from ldmkit_drawing.parts import Given, StageParts, System, stage_of, svg
from ldmkit_drawing.sheets import font
from ldmkit_drawing.systems import SYSTEMS, drawings

import ldmkit

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "papers.md").read_text(encoding="utf-8")


def texts(drawing: str) -> list[str]:
    """What stands in it, which is also a check that it is XML."""
    return [element.text or "" for element in ElementTree.fromstring(drawing).iter() if element.tag.endswith("text")]


def test_a_loaded_model() -> None:
    stage = stage_of("all", ldmkit.load("miniworld"), made=("layout",))
    assert stage.given == (
        Given("text", "ldm-text", "context"),
        Given("label", "label", "vector"),
        Given("layout", "layout-proposed", "context", made=True),
        Given("layout", "layout-plane", "plane", made=True),
        Given("semantic", "semantic", "plane"),
    )
    assert (stage.denoiser, stage.process, stage.sampler, stage.codec) == ("unet", "discrete, v", "dpmpp-2m", "kl")
    words = texts(svg(System("the bundled model", (stage,))))
    assert words[:2] == ["the bundled model", "all"] and words.count("layout") == 2 and "layout-plane" in words


def test_a_flow_has_no_prediction() -> None:
    pipe = tiny_parts.class_pipeline().with_(process=ldmkit.get("process", "flow")())
    assert stage_of("", pipe).process == "flow"


def test_words_are_escaped() -> None:
    stage = StageParts("<a>", (Given("b & c", "d", "e"),), "f", "g", "h", "i", beside=("<j>",))
    assert {"<a>", "b & c", "+ <j>", 'x "y"'} <= set(texts(svg(System('x "y"', (stage,)))))


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_are_made_of_installed_parts(name: str) -> None:
    for stage in SYSTEMS[name].stages:
        process, _, prediction = stage.process.partition(", ")
        named = [("denoiser", stage.denoiser), ("process", process), ("sampler", stage.sampler)]
        named += [("codec", stage.codec), *(("conditioner", given.reader) for given in stage.given)]
        for kind, part in named:
            assert isinstance(ldmkit.get(kind, part), type)
        if prediction:
            ldmkit.get("process", process)(prediction=prediction)


@pytest.mark.parametrize("name", SYSTEMS)
def test_words_have_room(name: str) -> None:
    """Pillow's font is about as wide as the pages' sans-serif; a box's text begins 10 pixels from its edge."""
    root = ElementTree.fromstring(svg(SYSTEMS[name]))
    boxes = [{k: float(e.attrib[k]) for k in ("x", "y", "width", "height")} for e in root if e.attrib.get("rx")]
    for box in boxes:
        for element in root:
            if not element.tag.endswith("text") or float(element.attrib["x"]) != box["x"] + 10:
                continue
            if box["y"] < float(element.attrib["y"]) < box["y"] + box["height"]:
                assert font(13).getlength(element.text or "") < box["width"] - 12, element.text


def test_the_pages_drawings_are_these() -> None:
    files = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "images" / "parts").iterdir()}
    assert files == drawings()
    assert set(re.findall(r"\(images/parts/([\w-]+\.svg)\)", PAGE)) == set(files)
