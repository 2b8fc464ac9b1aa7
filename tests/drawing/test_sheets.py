"""Contact sheets and drawings: what is drawn where, measured in the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_parts
import torch
from ldmkit_drawing import drawings, sheets
from ldmkit_drawing.sheets import Cell, Sheet, Style, picture, rendered, words, wrap
from PIL import Image

from ldmkit.errors import InputError

PLAIN = Style(tile=40, gap=4, margin=6, text=10, gutter=50, resample="nearest")
RED = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 8, 8)
LAYOUT = [{"label": "cat", "box": [0.0, 0.0, 0.5, 0.5]}, {"label": 2, "box": [0.25, 0.25, 1.0, 1.0]}]


def test_cells_stand_in_a_grid() -> None:
    sheet = np.asarray(Sheet(style=PLAIN).row(RED, None, RED).row(RED).render())
    red = (sheet == [255, 0, 0]).all(2)
    columns, rows = np.flatnonzero(red.any(0)), np.flatnonzero(red.any(1))
    assert red.sum() == 3 * 40 * 40
    assert (columns.min(), columns.max()) == (6, 6 + 3 * 40 + 2 * 4 - 1) and not red[:, 50:94].any()
    assert (rows.min(), rows.max()) == (6, 6 + 2 * 40 + 4 - 1)


def test_words_make_room_for_themselves_and_never_cover_pictures() -> None:
    long = "a caption of many words that does not fit into one line"
    bare = Sheet(style=PLAIN).row(RED, RED).render()
    full = Sheet("Title", ("one", "two"), note="small", style=PLAIN).row(Cell(RED, long), RED, label="row").render()
    assert full.height > bare.height + 60 and full.width == bare.width + 54
    assert (np.asarray(full) == [255, 0, 0]).all(2).sum() == 2 * 40 * 40


@pytest.mark.parametrize("text", ["a few short words and more of them", "onewordthatisfarlongerthantheline" * 3])
def test_wrapped_lines_fit_and_lose_nothing(text: str) -> None:
    from ldmkit_drawing.sheets import font

    lines = wrap(text, 60, 11)
    assert all(font(11).getlength(line) <= 60 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_too_many_lines_are_cut() -> None:
    assert words("word " * 100, 50, 10, lines=3).height == words("a\nb\nc", 50, 10).height


def test_pictures_of_every_form_are_the_same() -> None:
    array = (RED.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    made = [picture(form) for form in (RED, array, Image.fromarray(array))]
    assert all(np.array_equal(np.asarray(image), array) for image in made)
    tall = rendered(RED[:, :, :4], 40)
    assert tall is not None and tall.size == (20, 40)


def test_boxes_are_where_they_were_asked_for() -> None:
    names = ("cat", "dog", "tree")
    assert drawings.boxes(LAYOUT, names, proportions=(30, 60))((80, 80)).size == (80, 40), "a picture's own frame"
    image = np.asarray(drawings.boxes(LAYOUT, names)((81, 81)))
    cat, tree = (image == drawings.colour(0)).all(2), (image == drawings.colour(2)).all(2)
    assert cat[:41, 0].all() and cat[0, :20].any() and cat[:18, 40].all() and not cat[45:].any()
    assert tree[80, 20:].all() and tree[20:, 80].all() and not tree[:18].any()


def test_parsed_and_raw_layouts_draw_alike() -> None:
    conditioner = tiny_parts.scene_pipeline().conditioners["layout"]
    raw = drawings.condition(conditioner, LAYOUT)
    parsed = drawings.condition(conditioner, conditioner.parse(LAYOUT, "layout"))
    assert callable(raw) and callable(parsed)
    assert np.array_equal(np.asarray(raw((60, 60))), np.asarray(parsed((60, 60))))
    assert drawings.named_boxes(LAYOUT, conditioner.config.names)[1].label == "tree"


def test_names_of_boxes_in_one_place_do_not_cover_each_other() -> None:
    same = [{"label": name, "box": [0.2, 0.2, 0.8, 0.8]} for name in ("first", "second")]
    one, both = (np.asarray(drawings.boxes(same[:n])((120, 120))) for n in (1, 2))
    ink = drawings.colour(drawings._stable("first"))
    inner = slice(30, 90)
    assert (both[inner, inner] == ink).all(2).sum() >= 0.9 * (one[inner, inner] == ink).all(2).sum() - 4


def test_maps_show_each_class_in_its_colour_and_name_them() -> None:
    labels = torch.tensor([[0, 0], [4, 1]])
    image = np.asarray(drawings.label_map(labels, ("sky", "sea"), legend=False)((20, 20)))
    assert tuple(image[2, 2]) == drawings.colour(0) and tuple(image[15, 2]) == drawings.colour(4)
    assert tuple(image[15, 15]) == drawings.colour(1)
    assert drawings.label_map(labels, ("sky", "sea"))((80, 80)).height > 90


def test_colours_of_the_first_classes_can_be_told_apart() -> None:
    made = np.array([drawings.colour(i) for i in range(16)], float)
    apart = np.abs(made[:, None] - made[None]).sum(2) + 1000 * np.eye(16)
    assert apart.min() > 40


def test_what_each_kind_of_input_looks_like() -> None:
    pipe = tiny_parts.scene_pipeline()
    shown = {
        "label": drawings.condition(pipe.conditioners["label"], 3),
        "semantic": drawings.condition(pipe.conditioners["semantic"], torch.zeros(8, 8, dtype=torch.int64)),
        "layout": drawings.condition(pipe.conditioners["layout"], []),
        "none": drawings.condition(pipe.conditioners["label"], None),
    }
    for drawing in shown.values():
        assert callable(drawing) and drawing((30, 30)).width == 30
    exact = drawings.condition(pipe.conditioners["label"], RED * 2 - 1)
    assert isinstance(exact, torch.Tensor) and torch.equal(exact, RED)


def test_masks_and_differences() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[:, :4] = 1
    image = np.asarray(drawings.masked(RED, mask))
    assert (image[4:] == [255, 0, 0]).all() and not (image[:4] == [255, 0, 0]).all(2).any()
    assert torch.equal(drawings.difference(RED, RED), torch.zeros(3, 8, 8))
    assert float(drawings.difference(RED, RED * 0.9, gain=4)[0, 0, 0]) == pytest.approx(0.4)


def test_sheets_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = Sheet("t", style=PLAIN).row(RED).save(tmp_path / "sheet.png")
    assert Image.open(path).mode == "RGB"
    with pytest.raises(InputError, match=r"input\.not-png"):
        Sheet().save(tmp_path / "sheet.jpg")
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


def test_an_empty_sheet_is_still_a_picture() -> None:
    assert Sheet("nothing yet").render().height > 30


def test_long_unbroken_text_costs_in_proportion_to_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in letters that are measured, not by a clock: a picture as text is 2,000 letters without a space."""
    measured = 0
    real = sheets.font(11)

    class Counting:
        def getlength(self, text: str) -> float:
            nonlocal measured
            measured += len(text)
            return float(real.getlength(text))

    monkeypatch.setattr(sheets, "font", lambda size: Counting())
    costs = []
    for count in (1_000, 10_000):
        measured = 0
        text = "data:image/png;base64," + "iVBORw0K" * (count // 8)
        assert "".join(wrap(text, 60, 11)) == text
        costs.append(measured / len(text))
    assert costs[1] < 1.1 * costs[0] < 64, costs  # letters measured a letter
