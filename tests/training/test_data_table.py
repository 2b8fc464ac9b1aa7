"""Tables that name pictures: CSV in its varieties, TSV, JSON lines; written by the csv module and by hand."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from data_sources import lines, opened, picture, section
from ldmkit_training.data.batches import Batches

from ldmkit import InputError, SpecError

TEXTS = ["a house, by a lake", 'she said "no"', "two\nlines", "Käse; 5 €", "  blanks around  ", "tab\there", "''", "#7"]


def pictures(tmp_path: Path, count: int = 8) -> list[str]:
    (tmp_path / "p/sub").mkdir(parents=True, exist_ok=True)
    return [
        picture(tmp_path / "p" / ("sub" if number % 2 else ".") / f"{number} ü.png", (16, 16), (number, 0, 0))
        .relative_to(tmp_path / "p")
        .as_posix()
        for number in range(count)
    ]


def written(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], encoding: str = "utf-8", **how: Any
) -> Path:
    file = io.StringIO(newline="")
    csv.writer(file, **how).writerows([header, *rows])
    path.write_bytes(file.getvalue().encode(encoding))
    return path


DIALECTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("k.csv", {}, {}),
    ("k.csv", {"quoting": csv.QUOTE_ALL, "lineterminator": "\n"}, {}),
    ("k.csv", {"delimiter": ";", "quoting": csv.QUOTE_NONNUMERIC}, {"delimiter": ";"}),
    ("k.tsv", {"delimiter": "\t"}, {}),
    ("k.txt", {"delimiter": "|", "lineterminator": "\r\n"}, {"delimiter": "|"}),
    ("k.csv", {"encoding": "utf-8-sig"}, {}),
    ("k.csv", {"encoding": "utf-16"}, {"encoding": "utf-16"}),
    ("k.csv", {"encoding": "cp1252"}, {"encoding": "cp1252"}),
]


@pytest.mark.parametrize(("name", "how", "config"), DIALECTS)
def test_what_the_csv_module_writes_is_read(
    tmp_path: Path, name: str, how: dict[str, Any], config: dict[str, Any]
) -> None:
    rows = [[path, text, number % 3] for number, (path, text) in enumerate(zip(pictures(tmp_path), TEXTS, strict=True))]
    written(tmp_path / name, ["image", "words", "label"], rows, **how)
    columns = {"words": "text", "label": "label"}
    data = opened("table", tmp_path, file=name, picture="image", folder="p", columns=columns, **config)
    assert len(data) == 8 and data.geometry == {"text": "none", "label": "none"}
    for index, (path, text, label) in enumerate(rows):
        assert data.id(index) == path and dict(data.inputs(index)) == {"text": text, "label": label}
        assert data[index].image[0, 0].tolist() == [index, 0, 0]
    batch = Batches(data, section(batch=2), seed=0).at(0)[0]
    assert {row["text"] for row in batch.inputs} <= set(TEXTS)


def test_columns_that_are_not_named_are_left_out_and_all_are_inputs_otherwise(tmp_path: Path) -> None:
    names = pictures(tmp_path, 2)
    written(tmp_path / "p/k.csv", ["file_name", "text", "score"], [[names[0], "a", 0.5], [names[1], "b", 1.5]])
    assert dict(opened("table", tmp_path, file="p/k.csv").inputs(1)) == {"text": "b", "score": 1.5}
    assert dict(opened("table", tmp_path, file="p/k.csv", columns={"text": "caption"}).inputs(1)) == {"caption": "b"}


def test_a_table_without_a_header_with_blanks_and_several_rows_a_picture(tmp_path: Path) -> None:
    """As Flickr30k's captions are published: `1.jpg| 0| A man ...`."""
    names = pictures(tmp_path, 2)
    text = f'{names[0]}| 0| Two men .\n{names[0]}| 1| Two "friends" .\n{names[1]}| 0| A dog .\n'
    (tmp_path / "results.csv").write_text(text)
    config = {"file": "results.csv", "folder": "p", "delimiter": "|", "quotes": False, "strip": True,
              "header": ["file_name", "number", "comment"], "columns": {"comment": "text"}}  # fmt: skip
    data = opened("table", tmp_path, rows="captions", **config)
    assert [dict(data.inputs(i)) for i in range(2)] == [{"text": ["Two men .", 'Two "friends" .']}, {"text": "A dog ."}]
    assert data.choices == {"text"}
    batches = Batches(data, section(batch=4), seed=0)
    seen = {row["text"] for step in range(6) for row in batches.at(step)[0].inputs}
    assert seen == {"Two men .", 'Two "friends" .', "A dog ."}
    with pytest.raises(InputError, match="had one before") as caught:
        opened("table", tmp_path, **config)
    assert caught.value.where == f"{tmp_path / 'results.csv'}:2"


def test_json_lines_with_boxes_and_lists(tmp_path: Path) -> None:
    names = pictures(tmp_path, 2)
    box = [{"label": "dot", "box": [0.0, 0.0, 0.5, 1.0]}]
    rows = [{"path": names[0], "boxes": box, "text": ["a", "b"]}, {"path": names[1], "boxes": [], "text": ["c"]}]
    lines(tmp_path / "k.jsonl", *rows)
    config = {"file": "k.jsonl", "picture": "path", "folder": "p", "columns": {"boxes": "layout", "text": "text"}}
    data = opened("table", tmp_path, **config)
    assert data.geometry == {"layout": "boxes", "text": "none"} and data.inputs(0)["layout"] == box
    assert {row["text"] for row in Batches(data, section(batch=8), seed=0).at(0)[0].inputs} <= {"a", "b", "c"}
    cell = '"[{""label"": ""dot"", ""box"": [0, 0, 0.5, 1]}]"'
    (tmp_path / "k.csv").write_text(f"path,boxes\n{names[0]},{cell}\n")
    config |= {"file": "k.csv", "columns": {"boxes": "layout"}}
    assert opened("table", tmp_path, **config).inputs(0)["layout"] == [{"label": "dot", "box": [0, 0, 0.5, 1]}]


BAD = [
    ("file_name,text\n0 ü.png,a,b\n", "k.csv:2", "3 cells under 2 columns"),
    ("file_name;text\n0 ü.png;a\n", "k.csv:1", "the columns are ['file_name;text']"),
    ("path,text\n0 ü.png,a\n", "k.csv:1", "the columns are"),
    ("file_name,text,text\n0 ü.png,a,b\n", "k.csv:1", "the columns are"),
    ('file_name,text\n0 ü.png,"a\n', "k.csv:2", "no row of a CSV file"),
    ("file_name,text\n0 ü.png,a\n,b\n", "k.csv:3", "the row has no 'file_name'"),
    ("file_name,text\n0 ü.png,a\n0 ü.png,b\n", "k.csv:3", "had one before"),
    ("file_name,text\n0 ü.png,a\nnone.png,b\n", "k.csv", "1 row(s) name no file: 'k.csv:3 none.png'"),
    ("file_name,text\n0 ü.png,a\nsub/1 ü.png,\n", "k.csv", "picture(s) have no 'text': 'sub/1 ü.png'"),
    ("file_name,text\nnone.png,b\n", "k.csv", "none of the 1 pictures that its rows name is there"),
]


@pytest.mark.parametrize(("text", "where", "what"), BAD)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, text: str, where: str, what: str) -> None:
    pictures(tmp_path, 2)
    (tmp_path / "k.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        opened("table", tmp_path, file="k.csv", folder="p")
    assert str(caught.value.where).endswith(where) and what in caught.value.what and caught.value.fits


def test_rows_without_counterparts_may_be_allowed_and_are_counted(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    (tmp_path / "k.csv").write_text("file_name,text\n0 ü.png,a\nnone.png,b\nsub/1 ü.png,\n", encoding="utf-8")
    data = opened("table", tmp_path, file="k.csv", folder="p", missing="allow")
    assert len(data) == 2 and dict(data.inputs(1)) == {}
    assert "1 row(s) name no file: 'k.csv:3 none.png'" in data.notes[0] and "no 'text'" in data.notes[1]


def test_configs_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for wrong in ({"columns": {"a": "text", "b": "text"}}, {"columns": {"file_name": "x"}}, {"delimiter": "||"},
                  {"delimiter": '"'}, {"encoding": "utf9"}):  # fmt: skip
        with pytest.raises(SpecError):
            opened("table", tmp_path, file="k.csv", **wrong)
    (tmp_path / "k.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"a \.xlsx is not read"):
        opened("table", tmp_path, file="k.xlsx")
    (tmp_path / "k.csv").write_bytes(b"file_name,text\n\xff,b\n")
    with pytest.raises(InputError, match="not UTF-8 text"):
        opened("table", tmp_path, file="k.csv")


def test_a_spreadsheets_semicolons_are_named(tmp_path: Path) -> None:
    names = pictures(tmp_path, 2)
    (tmp_path / "k.csv").write_text(f"path;text\r\n{names[0]};a dog, red\r\n{names[1]};a cat\r\n")
    with pytest.raises(InputError, match=r"2 cells under 1 columns.*delimiter: ';'"):
        opened("table", tmp_path, file="k.csv", picture="path", folder="p")
    assert len(opened("table", tmp_path, file="k.csv", picture="path", folder="p", delimiter=";")) == 2
