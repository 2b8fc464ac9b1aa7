"""Sources of files: what they make of sound data."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sources import coco, lines, opened, picture, png, section, tar
from ldmkit_training.data.batches import Batches
from ldmkit_training.data.section import open_data
from PIL import Image

from ldmkit.errors import InputError, SpecError


def grey_map(path: Path, rows: list[list[int]], mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(rows, dtype=np.uint16 if mode == "I;16" else np.uint8))
    if mode == "P":
        image = image.convert("L")
        image.putpalette([i for level in range(256) for i in (level, 255 - level, 7)])
    image.save(path)
    return path


MAP = [[0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]] * 7 + [[2] * 12]


def test_a_folder_with_metadata(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "deep/b.JPG", colour=(1, 2, 3))
    picture(tmp_path / "Käse ♥.webp")
    picture(tmp_path / ".hidden.png")
    (tmp_path / "readme.txt").write_text("no picture")
    lines(
        tmp_path / "metadata.jsonl",
        {"file_name": "deep/b.JPG", "text": "blue", "label": 3, "layout": [{"label": "x", "box": [0, 0, 0.5, 1]}]},
        "",
        {"file_name": "Ka\u0308se ♥.webp", "text": "cheese", "label": 1, "layout": []},
        {"file_name": "./a.png", "text": "brown", "label": None, "layout": []},
    )
    data = opened("folder", tmp_path, folder=".", missing="allow")
    assert [data.id(i) for i in range(3)] == ["Käse ♥.webp", "a.png", "deep/b.JPG"]
    assert data.geometry == {"text": "none", "label": "none", "layout": "boxes"}
    assert data.inputs(1) == {"text": "brown", "layout": []}, "null is absent"
    assert data[2].inputs == data.inputs(2) and data.inputs(2)["layout"] == [{"label": "x", "box": [0, 0, 0.5, 1]}]
    assert data[1].image.shape == (8, 12, 3) and data[1].image[0, 0].tolist() == [200, 100, 50]
    assert len(data.notes) == 2 and data.notes[0] == "1 hidden picture(s) not read"
    assert "1 line(s) have no 'label': 'a.png'" in data.notes[1]


def test_a_folder_without_metadata_is_pictures_alone(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    data = opened("folder", tmp_path, folder="in")
    assert data.geometry == {} and data[0].inputs == {}
    assert Batches(data, section(batch=2), seed=0).at(0)[0].inputs == [{}, {}]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    picture(tmp_path / "real/a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/there").symlink_to(tmp_path / "real")
    (tmp_path / "real/up").symlink_to(tmp_path / "in")
    assert len(opened("folder", tmp_path, folder="in")) == 1


def test_class_folders(tmp_path: Path) -> None:
    for name in ("dog/1.png", "cat/1.png", "cat/more/2.png"):
        picture(tmp_path / "in" / name)
    data = opened("classes", tmp_path, folder="in")
    assert [(data.id(i), data.inputs(i)["label"]) for i in range(3)] == [
        ("cat/1.png", "cat"),
        ("cat/more/2.png", "cat"),
        ("dog/1.png", "dog"),
    ]
    numbered = opened("classes", tmp_path, folder="in", numbers=True, classes=["dog", "cat"], name="animal")
    assert [numbered.inputs(i)["animal"] for i in range(3)] == [1, 1, 0]
    rare = opened("classes", tmp_path, folder="in", classes=["dog", "newt", "cat"], missing="allow")
    assert "1 class(es) have no pictures: 'newt'" in rare.notes[0]


def test_coco_boxes(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png"), picture(tmp_path / "in/b.png")
    coco(tmp_path / "boxes.json")
    data = opened("coco", tmp_path, annotations="boxes.json", pictures="in")
    assert data.geometry == {"layout": "boxes"} and data.notes == ()
    assert data[0].inputs["layout"] == [
        {"label": "cell", "box": [0.25, 0.25, 0.75, 0.75]},
        {"label": "dust", "box": [0.0, 0.0, 0.25, 1.0]},
    ]
    assert data[1].inputs["layout"] == [], "a picture without annotations has an empty layout"
    numbered = opened("coco", tmp_path, annotations="boxes.json", pictures="in", numbers=True, most=1, name="boxes")
    assert numbered.inputs(0)["boxes"] == [{"label": 1, "box": [0.25, 0.25, 0.75, 0.75]}], "2 is dust, 4 is cell"
    assert "1 box(es) left out beyond the 1 largest" in numbered.notes[0]


def test_coco_boxes_are_mended_by_a_stated_rule(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png"), picture(tmp_path / "in/b.png")
    entry = {"image_id": 7, "category_id": 4}
    odd: list[dict[str, Any]] = [
        {**entry, "bbox": [-3, 2, 6, 4]},
        {**entry, "bbox": [1, 1, 0, 4]},
        {**entry, "bbox": [12, 1, 4, 4]},
        {**entry, "bbox": [0, 0, 12, 8], "iscrowd": 1},
    ]
    coco(tmp_path / "boxes.json", annotations=odd)

    def layout(**config: Any) -> tuple[Any, str]:
        data = opened("coco", tmp_path, annotations="boxes.json", pictures="in", boxes="mend", **config)
        return data.inputs(0)["layout"], "; ".join(data.notes)

    kept, notes = layout()
    assert kept == [{"label": "cell", "box": [0.0, 0.25, 0.25, 0.75]}]
    for said in ("2 box(es) clipped", "2 box(es) without area left out", "1 box(es) of crowds left out"):
        assert said in notes
    assert layout(crowds="keep")[0][1] == {"label": "cell", "box": [0.0, 0.0, 1.0, 1.0]}
    assert layout(crowds="group")[0][1] == {"label": "cell", "box": [0.0, 0.0, 1.0, 1.0], "group_of": True}


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_maps(tmp_path: Path, mode: str) -> None:
    picture(tmp_path / "photos/s/a.jpg")
    grey_map(tmp_path / "maps/s/a.png", MAP, mode)
    data = opened("maps", tmp_path, pictures="photos", maps="maps", classes=3)
    labels = data[0].inputs["semantic"]
    assert labels.tolist() == MAP and labels.dtype == np.uint8 and data.geometry == {"semantic": "map"}


def test_maps_beside_their_pictures_with_values_and_ignored_ones(tmp_path: Path) -> None:
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    raw = [[{0: 7, 1: 0, 2: 90}[v] for v in row] for row in MAP]
    grey_map(tmp_path / "a_labels.png", raw)
    config = {"pictures": ".", "maps": ".", "suffix": "_labels", "name": "areas"}
    data = opened("maps", tmp_path, **config, values=[90, 7], ignore=0, missing="allow")
    assert [data.id(i) for i in range(len(data))] == ["a.png", "b.png"]
    assert data.inputs(0)["areas"].tolist() == [[{0: 1, 1: 255, 2: 0}[v] for v in row] for row in MAP]
    assert data[1].inputs == {} and "1 picture(s) have no map: 'b.png'" in data.notes[0]


def test_wide_maps(tmp_path: Path) -> None:
    picture(tmp_path / "p/a.png")
    grey_map(tmp_path / "m/a.png", [[300] * 12] * 7 + [[4000] * 12], "I;16")
    labels = opened("maps", tmp_path, pictures="p", maps="m", classes=301, ignore=4000).inputs(0)["semantic"]
    assert labels.dtype == np.uint16 and labels[0, 0] == 300 and labels[7, 0] == 65535
    grey_map(tmp_path / "m/a.png", [[3] * 12] * 8, "I;16")
    labels = opened("maps", tmp_path, pictures="p", maps="m", classes=301, ignore=4000).inputs(0)["semantic"]
    assert labels.dtype == np.uint16, "as the other maps of the source, so that one array can hold them all"


def shard(path: Path, *keys: str, **extra: bytes) -> Path:
    members: dict[str, bytes] = {}
    for number, key in enumerate(keys):
        members |= {
            f"{key}.png": png(np.full((8, 12, 3), number, np.uint8)),
            f"{key}.txt": f"text of {key} ü".encode(),
            f"{key}.cls": str(number).encode(),
            f"{key}.json": json.dumps({"layout": [{"label": "x", "box": [0, 0, 1, 1]}], "score": number}).encode(),
            f"{key}.areas.png": png(np.array(MAP, np.uint8)),
        }
    return tar(path, members | extra)


def test_shards_in_any_order(tmp_path: Path) -> None:
    shard(tmp_path / "train-1.tar", "x/001", "x/002")
    shard(tmp_path / "train-0.tar", "x/001", "ü" * 90 + "/" + "k" * 120)  # a name beyond the header's 100 bytes
    data = opened("shards", tmp_path, shards="train-*.tar", maps={"areas": {"classes": 3}})
    assert len(data) == 4 and data.id(0) == "train-0.tar/x/001.png" and data.id(3) == "train-1.tar/x/002.png"
    assert data.geometry == {"text": "none", "label": "none", "layout": "boxes", "score": "none", "areas": "map"}
    for index in (3, 1, 0, 2):
        sample = data[index]
        assert sample.image.shape == (8, 12, 3) and int(sample.image.max()) == index % 2 == sample.inputs["label"]
        assert sample.inputs["areas"].tolist() == MAP and sample.inputs["score"] == index % 2
    assert data.inputs(2)["text"] == "text of x/001 ü"
    listed = opened("shards", tmp_path, shards=["train-1.tar"], maps={"areas": {}})
    assert [listed.id(i) for i in range(2)] == ["train-1.tar/x/001.png", "train-1.tar/x/002.png"]


def test_archives_of_one_name_keep_their_samples_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shard(tmp_path / folder / "0.tar", "001")
    data = opened("shards", tmp_path, shards="*/0.tar", maps={"areas": {}})
    assert [data.id(i) for i in range(len(data))] == ["a/0.tar/001.png", "b/0.tar/001.png"]
    with pytest.raises(InputError, match="twice"):
        opened("shards", tmp_path, shards=["a/0.tar", "b/../a/0.tar"], maps={"areas": {}})


def test_shards_by_workers(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", *(f"{i:03}" for i in range(6)))
    data = opened("shards", tmp_path, shards=str(path), maps={"areas": {}})
    by_thread, by_workers = (Batches(data, section(workers=w), seed=0).at(0)[0] for w in (0, 2))
    assert by_thread.ids == by_workers.ids and str(by_thread.inputs) == str(by_workers.inputs)


def joined(tmp_path: Path) -> list[dict[str, Any]]:
    for name in ("a", "b"):
        picture(tmp_path / f"in/{name}.png")
        grey_map(tmp_path / f"maps/{name}.png", MAP)
    lines(tmp_path / "in/metadata.jsonl", *({"file_name": f"{n}.png", "text": f"text {n}"} for n in "ab"))
    coco(tmp_path / "boxes.json")
    return [
        {"type": "folder", "config": {"folder": "in"}},
        {"type": "coco", "config": {"annotations": "boxes.json", "pictures": "in"}},
        {"type": "maps", "config": {"pictures": "in", "maps": "maps", "classes": 3}},
    ]


def test_sources_joined_by_name(tmp_path: Path) -> None:
    data = opened("join", tmp_path, sources=joined(tmp_path))
    assert data.geometry == {"text": "none", "layout": "boxes", "semantic": "map"}
    sample = data[0]
    assert sample.id == "a.png" and sample.inputs["text"] == "text a" and len(sample.inputs["layout"]) == 2
    assert sample.inputs["semantic"].tolist() == MAP and str(data.inputs(0)) == str(sample.inputs)
    batch = Batches(data, section(mirror=0.5, fit="random-crop"), seed=1).at(0)[0]
    assert all(inputs["semantic"].shape == (16, 16) for inputs in batch.inputs)


def test_joins_state_what_is_missing(tmp_path: Path) -> None:
    sources = joined(tmp_path)
    picture(tmp_path / "in/c.png")
    picture(tmp_path / "other/b.png")
    lines(tmp_path / "in/metadata.jsonl", *({"file_name": f"{n}.png", "text": n} for n in "abc"))
    for source in sources[1:]:
        source["config"]["missing"] = "allow"
    sources.append({"type": "classes", "config": {"folder": "."}})
    data = opened("join", tmp_path, sources=sources[:3], missing="allow")
    assert len(data) == 3 and set(data[2].inputs) == {"text"}
    assert any("sources[1] (coco): 1 sample(s) are not in it: 'c'" in note for note in data.notes)
    extra = {"type": "folder", "config": {"folder": "other"}}
    less = opened("join", tmp_path, sources=[extra, sources[0]], missing="allow")
    assert [less.id(i) for i in range(len(less))] == ["b.png"]
    assert any("2 sample(s) have no picture: 'a', 'c'" in note for note in less.notes)


def test_by_path_tells_folders_apart(tmp_path: Path) -> None:
    for name in ("x/1.png", "y/1.png"):
        picture(tmp_path / "in" / name)
        grey_map(tmp_path / "maps" / name, MAP)
    sources = [
        {"type": "classes", "config": {"folder": "in"}},
        {"type": "maps", "config": {"pictures": "in", "maps": "maps"}},
    ]
    assert len(opened("join", tmp_path, sources=sources, by="path")) == 2


def test_fingerprints_follow_the_files(tmp_path: Path) -> None:
    sources = joined(tmp_path)
    shard(tmp_path / "s.tar", "1", "2")

    def prints() -> list[str]:
        kinds = [(s["type"], s["config"]) for s in sources]
        kinds += [("join", {"sources": sources}), ("shards", {"shards": "s.tar", "maps": {"areas": {}}})]
        return [opened(kind, tmp_path, **config).fingerprint for kind, config in kinds]

    first = prints()
    assert prints() == first and len(set(first)) == 5
    picture(tmp_path / "in/a.png", colour=(9, 9, 9))
    assert [a != b for a, b in zip(first, prints(), strict=True)] == [True, True, True, True, False]
    second = prints()
    os.utime(tmp_path / "s.tar", (1, 1))
    lines(tmp_path / "in/metadata.jsonl", *({"file_name": f"{n}.png", "text": "new"} for n in "ab"))
    assert [a != b for a, b in zip(second, prints(), strict=True)] == [True, False, False, True, True]


def test_a_section_opens_both_and_checks_names(tmp_path: Path) -> None:
    spec = joined(tmp_path)[0]
    train, validation = open_data(section(train=spec, validation=spec, inputs={"text": "caption"}), tmp_path)
    assert validation is not None and len(train) == len(validation) == 2
    with pytest.raises(SpecError, match=r"data\.inputs\.txt: the data have no input 'txt'.*did you mean 'text'"):
        open_data(section(train=spec, inputs={"txt": "caption"}), tmp_path)
    with pytest.raises(SpecError, match=r"data\.train\.config\.foldr: unknown key"):
        open_data(section(train={"type": "folder", "config": {"foldr": "in"}}), tmp_path)


def jpeg_with_orientation(path: Path, orientation: int) -> Path:
    image = Image.new("RGB", (12, 8), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 6, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif, quality=95)
    return path


def test_pictures_are_read_upright(tmp_path: Path) -> None:
    """Orientation 6 is shown turned by 90 degrees clockwise: what is stored at the left stands on top."""
    jpeg_with_orientation(tmp_path / "a.jpg", 6)
    image = opened("folder", tmp_path, folder=".")[0].image
    assert image.shape == (12, 8, 3) and image[:5].min() > 200 and image[7:].max() < 55


@pytest.mark.parametrize(
    ("mode", "colour", "wanted"),
    [("L", 90, [90, 90, 90]), ("1", 1, [255, 255, 255]), ("P", 3, None), ("RGBA", (9, 8, 7, 255), [9, 8, 7])],
)
def test_grey_palette_and_opaque_pictures_become_rgb(tmp_path: Path, mode: str, colour: Any, wanted: Any) -> None:
    image = Image.new(mode, (12, 8), colour)
    if mode == "P":
        image.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2, 50, 60, 70])
        wanted = [50, 60, 70]
    image.save(tmp_path / "a.png")
    assert opened("folder", tmp_path, folder=".")[0].image[3, 3].tolist() == wanted


def test_transparent_pictures_get_the_stated_background(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", mode="RGBA", colour=(255, 0, 0, 51))  # a fifth of red
    data = opened("folder", tmp_path, folder=".", background=[0, 100, 255])
    assert data[0].image[0, 0].tolist() == [51, 80, 204]
    grey = Image.new("LA", (12, 8), (100, 0))
    grey.save(tmp_path / "a.png")
    assert data[0].image[0, 0].tolist() == [0, 100, 255]


def test_the_contents_count_not_the_ending(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (12, 8), (10, 20, 30)).save(file, "PNG")
    (tmp_path / "a.jpg").write_bytes(file.getvalue())
    assert opened("folder", tmp_path, folder=".")[0].image[0, 0].tolist() == [10, 20, 30]
