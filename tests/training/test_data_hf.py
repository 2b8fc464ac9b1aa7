"""Data sets of the library `datasets`, written by it: saved to disk, and as parquet files by split."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sources import opened, section
from ldmkit_training.data.batches import Batches
from ldmkit_training.data.identity import differing, identity
from ldmkit_training.data.sources import hf
from PIL import Image

from ldmkit import InputError, SpecError, build_value
from ldmkit.models.spec import PartSpec
from ldmkit.testing import check_data


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    found = pytest.importorskip("datasets")
    monkeypatch.setattr(found.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return found


def picture(number: int) -> Image.Image:
    noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def encoded(number: int, kind: str) -> bytes:
    file = io.BytesIO()
    picture(number).save(file, kind)
    return file.getvalue()


def table(datasets: Any, count: int = 5, **more: Any) -> Any:
    features = datasets.Features({
        "image": datasets.Image(), "text": datasets.Value("string"), "kind": datasets.ClassLabel(names=["cat", "dog"]),
    })  # fmt: skip
    rows = {"image": [picture(n) for n in range(count)], "text": [f"picture {n}, ü" for n in range(count)],
            "kind": [n % 2 for n in range(count)]}  # fmt: skip
    return datasets.Dataset.from_dict(rows, features=features)


def test_what_save_to_disk_wrote_is_read(tmp_path: Path, datasets: Any) -> None:
    table(datasets).save_to_disk(str(tmp_path / "saved"), num_shards=2)
    data = opened("hf", tmp_path, folder="saved")
    assert len(data) == 5 and data.geometry == {"text": "none", "kind": "none"}
    assert data.numbering == {"kind": ("cat", "dog")}
    for index in range(5):
        sample = data[index]
        assert np.array_equal(sample.image, np.asarray(picture(index)))
        assert (
            dict(sample.inputs) == dict(data.known(index) or {}) == {"text": f"picture {index}, ü", "kind": index % 2}
        )
        assert data.picture_size(index) == (12, 16)
    batch = Batches(data, section(batch=4, workers=2), seed=0).at(1)[0]
    assert len(batch.ids) == 4
    renamed = opened("hf", tmp_path, folder="saved", columns={"text": "caption"})
    assert dict(renamed.inputs(2)) == {"caption": "picture 2, ü"}
    assert not differing(identity(data), identity(opened("hf", tmp_path, folder="saved")))
    table(datasets, 5).map(lambda row: {"text": row["text"] + "!"}).save_to_disk(str(tmp_path / "other"))
    other = opened("hf", tmp_path, folder="other")
    assert differing(identity(data), identity(other)) == ["labels, texts, boxes or other inputs"]
    assert other.fingerprint != data.fingerprint


def test_splits_are_named(tmp_path: Path, datasets: Any) -> None:
    made = datasets.DatasetDict({"train": table(datasets), "test": table(datasets, 2)})
    made.save_to_disk(str(tmp_path / "saved"))
    assert len(opened("hf", tmp_path, folder="saved", split="test")) == 2
    for split, said in ((None, "which split"), ("tset", "no split 'tset'")):
        with pytest.raises(InputError, match=said) as caught:
            opened("hf", tmp_path, folder="saved", split=split)
        assert "train | test" in str(caught.value.fits)
    table(datasets).save_to_disk(str(tmp_path / "one"))
    with pytest.raises(InputError, match="no split 'train'"):
        opened("hf", tmp_path, folder="one", split="train")


LAYOUTS = [
    ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"),
    ("default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"),
    ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.parquet"),
]


@pytest.mark.parametrize("names", LAYOUTS, ids=lambda names: names[0])
def test_parquet_files_as_they_are_published(tmp_path: Path, datasets: Any, names: tuple[str, ...]) -> None:
    whole = table(datasets, 6)
    for name, rows in zip(names, (range(3), range(3, 5), range(5, 6)), strict=True):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        whole.select(rows).to_parquet(str(tmp_path / "d" / name))
    data = opened("hf", tmp_path, folder="d", split="train")
    assert [data.inputs(i)["text"] for i in range(len(data))] == [f"picture {n}, ü" for n in range(5)]
    assert np.array_equal(data[4].image, np.asarray(picture(4)))
    assert len(opened("hf", tmp_path, folder="d", split="test")) == 1


def test_configurations_are_not_mixed(tmp_path: Path, datasets: Any) -> None:
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        table(datasets, 2).to_parquet(str(tmp_path / f"d/{name}/train-00000-of-00001.parquet"))
    with pytest.raises(InputError, match="lie in several folders: 'a', 'b'"):
        opened("hf", tmp_path, folder="d")
    assert len(opened("hf", tmp_path, folder="d/a")) == 2


def test_pictures_as_bytes_paths_and_second_pictures(tmp_path: Path, datasets: Any) -> None:
    picture(0).save(tmp_path / "0.png")
    features = datasets.Features({"image": datasets.Value("binary"), "conditioning_image": datasets.Image()})
    rows = {"image": [encoded(0, "PNG"), encoded(1, "JPEG")], "conditioning_image": [picture(7), picture(8)]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    data = opened("hf", tmp_path, folder="saved", columns={"conditioning_image": "hint"})
    jpeg = np.asarray(Image.open(io.BytesIO(encoded(1, "JPEG"))))
    assert np.array_equal(data[0].image, np.asarray(picture(0))) and np.array_equal(data[1].image, jpeg)
    from ldmkit.files.pictures import read_picture

    hint = read_picture(data.inputs(1)["hint"])
    assert np.array_equal(((hint + 1) * 127.5).round().byte().permute(1, 2, 0).numpy(), np.asarray(picture(8)))
    named = datasets.Dataset.from_dict({"image": ["../0.png", "../none.png"]})
    named.save_to_disk(str(tmp_path / "named"))
    paths = opened("hf", tmp_path, folder="named")
    assert np.array_equal(paths[0].image, np.asarray(picture(0)))
    with pytest.raises(InputError, match=r"no file '\.\./none\.png'") as caught:
        paths[1]
    assert "row 1, 'image'" in str(caught.value.where)


def test_cells_that_are_null_are_counted(tmp_path: Path, datasets: Any) -> None:
    rows: Mapping[str, Any] = {"image": [encoded(0, "PNG")] * 3, "text": ["a", None, ["b"][0]]}
    datasets.Dataset.from_dict(dict(rows)).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(InputError, match=r"1 row\(s\) have no 'text': '1'"):
        opened("hf", tmp_path, folder="saved")
    data = opened("hf", tmp_path, folder="saved", missing="allow")
    assert dict(data.inputs(1)) == {} and "1 row(s) have no 'text'" in data.notes[0]


def test_what_is_not_there_or_no_data_set_is_an_error(tmp_path: Path, datasets: Any) -> None:
    table(datasets).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(InputError, match="no column 'img'"):
        opened("hf", tmp_path, folder="saved", image="img")
    with pytest.raises(InputError, match="no column 'txt'"):
        opened("hf", tmp_path, folder="saved", columns={"txt": "text"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no data set"):
        opened("hf", tmp_path, folder="empty")
    (tmp_path / "empty/train.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="cannot read it"):
        opened("hf", tmp_path, folder="empty")
    with pytest.raises(InputError, match="no such folder"):
        opened("hf", tmp_path, folder="none")
    check_data(hf.HFData).require()


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf, "find_spec", lambda name: None)
    with pytest.raises(SpecError) as caught:
        build_value("data", PartSpec(type="hf", config={"folder": "d"}), "data").open(tmp_path)
    assert caught.value.code == "spec.library-missing" and "pip install datasets" in str(caught.value.fits)
    check_data(hf.HFData).require()
