"""Several sources as one: repeats, folders named like kohya's, and a held-out part of one folder."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from data_sources import lines, opened, picture, section
from ldmkit_training.before.opening import open_recipe
from ldmkit_training.before.recipe import Recipe
from ldmkit_training.data.batches import Batches
from ldmkit_training.data.splitting import split
from ldmkit_training.loop.devices import open_accelerator
from PIL import Image

from ldmkit import Dataset, InputError, SpecError


def folder(path: Path, count: int, start: int = 0) -> dict[str, Any]:
    """Pictures of one colour each, no two alike; the part that reads them."""
    for number in range(count):
        picture(path / f"{number}.png", (16, 16), (start + number, 7, 9))
    return {"type": "folder", "config": {"folder": path.name, "caption": f"a {path.name}"}}


def drawn(data: Dataset, many: int, **changes: Any) -> Counter[str]:
    batches = Batches(data, section(batch=1, **changes), seed=0)
    return Counter(batch.ids[0] for _, [batch] in islice(batches.steps(0), many))


def test_repeats_are_of_an_epoch_of_all(tmp_path: Path) -> None:
    sources = [folder(tmp_path / "dog", 3), folder(tmp_path / "class", 4, 50)]
    data = opened("concat", tmp_path, sources=sources, repeats=[10, 1])
    found = drawn(data, 34)
    assert {name: found[name] for name in found if name.startswith("0/")} == {f"0/{n}.png": 10 for n in range(3)}
    assert {name: found[name] for name in found if name.startswith("1/")} == {f"1/{n}.png": 1 for n in range(4)}
    assert any("sources[0] (folder): 3 samples, 10 times each, 0.882 of the draws" in note for note in data.notes)
    assert {data.inputs(0)["text"], data.inputs(5)["text"]} == {"a dog", "a class"}
    for wrong in ({"repeats": [1]}, {"repeats": [1, 0]}, {"repeats": [1, 1], "weights": [1, 1]}):
        with pytest.raises(SpecError):
            opened("concat", tmp_path, sources=sources, **wrong)


def kohya(tmp_path: Path) -> None:
    for name, count in (("10_sks dog", 3), ("1_dog", 4), ("2_sks cat", 2)):
        folder(tmp_path / "k" / name, count, 20 * count)
    (tmp_path / "k/10_sks dog/0.txt").write_text("sks dog, on a chair")


def test_folders_named_like_kohyas_repeat_and_name_their_pictures(tmp_path: Path) -> None:
    kohya(tmp_path)
    data = opened("folder", tmp_path, folder="k", folders="kohya", captions=".txt")
    found = drawn(data, 3 * 10 + 4 + 2 * 2)
    wanted = {f"10_sks dog/{n}.png": 10 for n in range(3)} | {f"1_dog/{n}.png": 1 for n in range(4)}
    assert found == wanted | {f"2_sks cat/{n}.png": 2 for n in range(2)}
    texts = {data.id(i): data.inputs(i)["text"] for i in range(len(data))}
    assert texts["10_sks dog/0.png"] == "sks dog, on a chair" and texts["10_sks dog/1.png"] == "sks dog"
    assert texts["1_dog/3.png"] == "dog"
    said = "\n".join(data.notes)
    assert "'10_sks dog' 3 x 10" in said and "38 samples an epoch of all" in said
    assert "8 picture(s) have no caption, and get one" in said
    plain = opened("folder", tmp_path, folder="k", caption="x")
    assert any("folders: kohya repeats them" in note for note in plain.notes) and not plain.mixture


def test_repeating_folders_beside_others_keep_their_repeats(tmp_path: Path) -> None:
    kohya(tmp_path)
    sources = [
        {"type": "folder", "config": {"folder": "k", "folders": "kohya"}},
        folder(tmp_path / "dog", 5, 100),
    ]
    data = opened("concat", tmp_path, sources=sources)
    found = drawn(data, 38 + 5)
    assert found["0/10_sks dog/1.png"] == 10 and found["0/1_dog/1.png"] == 1 and found["1/3.png"] == 1
    twice = drawn(opened("concat", tmp_path, sources=sources, repeats=[1, 2]), 38 + 10)
    assert twice["0/10_sks dog/1.png"] == 10 and twice["1/3.png"] == 2
    half = drawn(opened("concat", tmp_path, sources=sources, weights=[1, 1]), 2 * 38 * 5)
    shares = Counter(name[0] for name, many in half.items() for _ in range(many))
    assert shares["0"] == shares["1"] and half["0/10_sks dog/1.png"] == 10 * half["0/1_dog/1.png"]
    nested = [{"type": "concat", "config": {"sources": sources, "weights": [3, 1]}}, sources[1]]
    with pytest.raises(SpecError, match="weights of its own"):
        opened("concat", tmp_path, sources=nested)


@pytest.mark.parametrize("name", ["sks dog", "0_dog", "10 dog", "99999_dog", "10_"])
def test_a_folder_that_is_not_named_so_is_an_error(tmp_path: Path, name: str) -> None:
    folder(tmp_path / "k" / name, 1)
    with pytest.raises(InputError) as caught:
        opened("folder", tmp_path, folder="k", folders="kohya")
    assert caught.value.code == "input.folder-name" and name in caught.value.what
    picture(tmp_path / "k/alone.png")
    with pytest.raises(InputError, match="does not say how often"):
        opened("folder", tmp_path, folder="k", folders="kohya")


def random_pictures(tmp_path: Path, count: int) -> None:
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        (tmp_path / "d").mkdir(exist_ok=True)
        Image.fromarray(noise).save(tmp_path / f"d/{number:02}.png")


def test_a_held_out_part_depends_on_what_the_pictures_show_alone(tmp_path: Path) -> None:
    random_pictures(tmp_path, 30)
    train, held = split(opened("folder", tmp_path, folder="d"), 0.2, "stop")
    assert len(held) == 6 and len(train) == 24 and "6 of 30 samples are held out" in train.notes[-1]
    shown = {held[i].image.tobytes() for i in range(6)}
    assert not shown & {train[i].image.tobytes() for i in range(24)}
    for number in range(30):  # other names, another order, and captions
        (tmp_path / f"d/{number:02}.png").rename(tmp_path / f"d/{97 - 3 * number:02}-x.png")
        (tmp_path / f"d/{97 - 3 * number:02}-x.txt").write_text(f"caption {number}")
    _, again = split(opened("folder", tmp_path, folder="d", captions=".txt"), 6, "stop")
    assert {again[i].image.tobytes() for i in range(6)} == shown


def test_no_picture_stands_on_both_sides(tmp_path: Path) -> None:
    random_pictures(tmp_path, 10)
    for copy in range(3):
        for number in range(10):
            data = (tmp_path / f"d/{number:02}.png").read_bytes()
            (tmp_path / f"d/copy {copy} of {number}.png").write_bytes(data)
    for wanted in (0.1, 0.3, 0.75, 1, 7):
        train, held = split(opened("folder", tmp_path, folder="d"), wanted, "stop")
        least = round(wanted * 40) if wanted < 1 else wanted
        assert least <= len(held) < least + 4 and len(held) + len(train) == 40
        assert not {held[i].image.tobytes() for i in range(len(held))} & {
            train[i].image.tobytes() for i in range(len(train))
        }
        assert "40 samples share their picture with others" in train.notes[-1]
    with pytest.raises(InputError, match="none trained on"):
        split(opened("folder", tmp_path, folder="d"), 37, "stop")


def recipe(tmp_path: Path, *overrides: str) -> Recipe:
    data = tiny.denoiser_data(tmp_path / "run", "data.validation=null", "data.held_out=0.25")
    if not (tmp_path / "d").exists():
        random_pictures(tmp_path, 12)
        lines(tmp_path / "d/metadata.jsonl", *({"file_name": f"{n:02}.png", "label": "snow"} for n in range(12)))
    data["data"]["train"] = {"type": "folder", "config": {"folder": str(tmp_path / "d")}}
    return tiny.parse_recipe(tiny.overridden(data, overrides))


def test_a_run_validates_on_what_it_holds_out(tmp_path: Path) -> None:
    _, train, held = open_recipe(recipe(tmp_path), tmp_path, open_accelerator())
    assert len(train) == 9 and held is not None and len(held) == 3
    assert tiny.train(recipe(tmp_path, "steps=3"), tmp_path).step == 3
    assert '"validation/loss"' in (tmp_path / "run/log.jsonl").read_text()
    with pytest.raises(SpecError) as caught:
        tiny.train(recipe(tmp_path, "data.held_out=0.5"), tmp_path)
    assert caught.value.code == "spec.other-recipe"


def test_what_is_held_out_twice_or_by_halves_is_refused(tmp_path: Path) -> None:
    source = {"type": "folder", "config": {"folder": "d"}}
    with pytest.raises(SpecError, match="held out"):
        section(held_out=0.1, validation=source)
    for wrong in (0, -1, 2.5):
        with pytest.raises(SpecError, match="held_out"):
            section(held_out=wrong)


def test_a_mixture_keeps_its_shares_in_both_parts(tmp_path: Path) -> None:
    sources = [folder(tmp_path / "dog", 8), folder(tmp_path / "class", 20, 50)]
    train, held = split(opened("concat", tmp_path, sources=sources, weights=[1, 1]), 0.25, "stop")
    assert sum(count for count, _ in train.mixture) == len(train) == 21 and len(held) == 7
    found = drawn(train, 100)
    assert sum(many for name, many in found.items() if name.startswith("0/")) == 50
