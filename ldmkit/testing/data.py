"""The contract of sources of training data: stable samples, with ids and geometry."""

from __future__ import annotations

import os
import pickle
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

from ldmkit.contracts.data import Data, Dataset, Geometry, Sample, plain
from ldmkit.contracts.example import Example
from ldmkit.errors import InputError, LdmkitError, SpecError
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import NotApplicable, Report, check, expect, fail
from ldmkit.testing.content import content
from ldmkit.testing.part import examples_of
from ldmkit.testing.rng import rng_states

MOST = 8
"""Number of samples to check, from the first on."""


@dataclass(frozen=True)
class Subject:
    """A source of data in one configuration."""

    cls: type[Data]
    config: Mapping[str, Any]

    def make(self) -> Data:
        """The source, built as from a recipe."""
        return self.cls.of(dict(self.config), "config")

    @contextmanager
    def files(self) -> Iterator[Path]:
        """A temporary folder with the files that its example reads."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "recipe"
            folder.mkdir()
            try:
                self.make().write_example(folder)
            except SpecError as error:
                if error.code != "spec.library-missing":
                    raise
                raise NotApplicable(str(error)) from None
            yield folder

    @contextmanager
    def opened(self) -> Iterator[Dataset]:
        """The data of its example, opened."""
        with self.files() as folder:
            yield self.make().open(folder)


def check_data(cls: type[Data], config: Mapping[str, Any] | None = None) -> Report:
    """Run every check of sources of data on a class.

    Args:
        config: a small config, for which `write_example` of the source writes the files that it reads; None: that of
            the class's first example.
    """
    own = config is None and examples_of(cls)
    return check_class("data", cls, None if own else Example(config or {}))


def subject(cls: type, example: Example) -> Subject:
    """The subject of the checks."""
    return Subject(cls, dict(example.config))


def _read(dataset: Dataset) -> list[Sample]:
    return [dataset[index] for index in range(min(MOST, len(dataset)))]


def _plain(samples: list[Sample]) -> list[Any]:
    return [content([s.id, s.image, dict(s.inputs)]) for s in samples]


def _expect_same(found: list[Sample], wanted: list[Sample], what: str) -> None:
    for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
        expect(one.id == other.id, f"{what}: sample {index} is {other.id!r}", repr(one.id))
        expect(np.array_equal(one.image, other.image), f"{what}: the same picture in {one.id!r}", "a different picture")
        same = content(dict(one.inputs)) == content(dict(other.inputs))
        expect(same, f"{what}: inputs of {one.id!r} {dict(other.inputs)!r:.200}", f"{dict(one.inputs)!r:.200}")


@check("data", "opens", cause=True)
def opens(s: Subject) -> None:
    """`open(folder)` returns a `Dataset` with samples; paths are relative to that folder.

    The folder is the recipe's, which need not be the working directory. A source that reads files implements
    `write_example(folder)`, which writes small ones into an empty folder for the checks.
    """
    with s.opened() as dataset:
        expect(isinstance(dataset, Dataset), "open() to return a ldmkit.Dataset", f"a {type(dataset).__name__}")
        expect(len(dataset) > 0, "at least one sample in the example", "none")


@check("data", "ids")
def ids(s: Subject) -> None:
    """Ids are unique strings, the same whenever the source is opened, and equal to the samples' ids.

    Errors and caches refer to samples by id; `id(index)` does not read the picture.
    """
    with s.files() as folder:
        dataset = s.make().open(folder)
        found = [dataset.id(index) for index in range(len(dataset))]
        expect(all(isinstance(one, str) and one for one in found), "ids to be text", f"{found[:3]!r:.200}")
        twice = sorted({one for one in found if found.count(one) > 1})
        expect(not twice, "a unique id for each sample", f"{twice[:3]} several times")
        again = s.make().open(folder)
        expect(found == [again.id(i) for i in range(len(again))], "the same ids in the same order", "different ones")
        for index, sample in enumerate(_read(dataset)):
            expect(sample.id == found[index], f"sample {index} to have the id {found[index]!r}", f"{sample.id!r}")


@check("data", "stable", cause=True)
def stable(s: Subject) -> None:
    """Sample i is the same whenever it is read, in any order, and after reopening.

    Training resumes at any step, and reads in a different order in every epoch. Random crops and mirroring are not the
    source's task: they are configured in the `data` section of a recipe.
    """
    with s.files() as folder:
        dataset = s.make().open(folder)
        first = _read(dataset)
        backwards = [dataset[index] for index in reversed(range(len(first)))][::-1]
        _expect_same(backwards, first, "read backwards")
        _expect_same(_read(s.make().open(folder)), first, "opened again")


@check("data", "image")
def image(s: Subject) -> None:
    """Pictures are RGB arrays (H, W, 3) of uint8.

    This holds for every file format: convert greyscale and palette files, and put transparent pictures on a background
    or refuse them.
    """
    with s.opened() as dataset:
        for sample in _read(dataset):
            expect(isinstance(sample, Sample), "ldmkit.Sample", f"a {type(sample).__name__}")
            found = sample.image
            expect(isinstance(found, np.ndarray), f"the picture of {sample.id!r}: an array", f"{type(found).__name__}")
            fine = found.dtype == np.uint8 and found.ndim == 3 and found.shape[-1] == 3 and 0 not in found.shape
            wanted = f"the picture of {sample.id!r}: uint8 (height, width, 3)"
            expect(fine, wanted, f"{found.dtype} {found.shape}")


@check("data", "geometry")
def geometry(s: Subject) -> None:
    """Every input is declared in `geometry`, and has the declared form.

    Crops and mirroring transform inputs accordingly. "none": not at all. "boxes": a list of {"label", "box": [x0, y0,
    x1, y1]}, relative to the picture. "map": an integer array (H, W), one value per pixel of the picture. An input that
    is not declared would be wrong as soon as a picture is cropped.
    """
    rules = get_args(Geometry)
    with s.opened() as dataset:
        unknown = {name: rule for name, rule in dataset.geometry.items() if rule not in rules}
        expect(not unknown, f"geometry to be of {', '.join(rules)}", f"{unknown}")
        for sample in _read(dataset):
            for name, value in sample.inputs.items():
                listed = f"the input {name!r} of {sample.id!r} to be in geometry"
                expect(name in dataset.geometry, listed, f"geometry has {sorted(dataset.geometry)}")
                _expect_fit(sample, name, value, dataset.geometry[name])


def _expect_fit(sample: Sample, name: str, value: Any, rule: str) -> None:
    what = f"the input {name!r} of {sample.id!r}"
    if rule == "map":
        size = sample.image.shape[:2]
        fine = isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.shape == size
        came = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        expect(fine, f"{what}: an integer array {size}, the size of its picture", came)
    if rule == "boxes":
        expect(isinstance(value, (list, tuple)), f"{what}: a list of boxes", f"a {type(value).__name__}")
        for one in value:
            expect(
                _is_box(one),
                f'{what}: {{"label", "box": [x0, y0, x1, y1]}} in [0, 1], x0 < x1, y0 < y1',
                f"{one!r:.200}",
            )


def _is_box(one: Any) -> bool:
    if not (isinstance(one, Mapping) and "label" in one and "box" in one and len(one["box"]) == 4):
        return False
    x0, y0, x1, y1 = one["box"]
    return bool(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1)


@check("data", "inputs")
def inputs(s: Subject) -> None:
    """`inputs(index)` returns the same as `self[index].inputs`.

    The training plan, the cache and previews use it to read captions and labels without decoding pictures.
    """
    with s.opened() as dataset:
        for index, sample in enumerate(_read(dataset)):
            found, wanted = dict(dataset.inputs(index)), dict(sample.inputs)
            expect(content(found) == content(wanted), f"inputs({index}): {wanted!r:.200}", f"{found!r:.200}")


@check("data", "plain-inputs")
def plain_inputs(s: Subject) -> None:
    """Inputs other than maps are plain data: text, numbers, lists and mappings.

    Training stores them with cached latents, and refuses anything else (`input.not-cacheable`): a PIL picture, a
    tensor, an open file. Give a picture by its path or as a data URI (`data_uri`), and numbers as lists.
    """
    with s.opened() as dataset:
        for sample in _read(dataset):
            for name, value in sample.inputs.items():
                if dataset.geometry.get(name) == "map":
                    continue
                try:
                    plain(value, name)
                except InputError as problem:
                    expect(False, f"the input {name!r} of {sample.id!r}: plain data", problem.what)


@check("data", "fingerprint")
def fingerprint(s: Subject) -> None:
    """The fingerprint is a string that changes if, and only if, the data change.

    Caches of latents are keyed by it. It is the same after reopening and after reading. If the contents of files
    change, so does the fingerprint, whether it is derived from names, sizes and times or from contents (as the
    inherited one is): a stale cache must never be used.
    """
    with s.files() as folder:
        dataset = s.make().open(folder)
        first = dataset.fingerprint
        expect(isinstance(first, str) and bool(first), "the fingerprint to be text", f"{first!r:.100}")
        _read(dataset)
        expect(dataset.fingerprint == first, "the same fingerprint after reading", "a different one")
        again = s.make().open(folder).fingerprint
        expect(again == first, "the same fingerprint after opening again", "a different one")
        files = [path for path in folder.rglob("*") if path.is_file()]
        if not files:
            return
        for path in files:
            _replace(path)
        try:
            changed = s.make().open(folder).fingerprint
        except InputError:
            return  # refusing the changed files is fine too: no stale cache is used
        expect(changed != first, "another fingerprint after all files were replaced", "the same one")


def _replace(path: Path) -> None:
    """Change a file's content and modification time: invert a picture, change the digits of a text."""
    try:
        with Image.open(path) as picture:
            form, levels = picture.format, np.array(picture)
        Image.fromarray(~levels).save(path, form)
    except (OSError, TypeError, ValueError):
        digits = bytes.maketrans(b"0123456789", b"1032547698")
        path.write_bytes(path.read_bytes().translate(digits))
    os.utime(path, (1_000_000_000, 1_000_000_000))


@check("data", "no-traces")
def no_traces(s: Subject) -> None:
    """Opening and reading writes no files and draws from no global random generator."""
    with s.files() as folder:
        before, states = _listing(folder), rng_states()
        _read(s.make().open(folder))
        expect(_listing(folder) == before, "the folder as it was", "files in it were written, removed or changed")
        changed = [name for name, state in rng_states().items() if state != states[name]]
        expect(not changed, "global random generators unchanged", f"changed: {', '.join(changed)}")


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    files = ((str(path), path.stat()) for path in folder.rglob("*"))
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in files}


@check("data", "pickles")
def pickles(s: Subject) -> None:
    """An opened source can be pickled; the copy gives the same samples.

    Worker processes get a copy. Open files only to read them, and store paths rather than file objects.
    """
    with s.opened() as dataset:
        again = pickle.loads(pickle.dumps(dataset))
        _expect_same(_read(again), _read(dataset), "a pickled copy")


@check("data", "threads")
def threads(s: Subject) -> None:
    """Several threads can read from it at once, with the same results as one.

    Without worker processes, a thread reads ahead of training. A single open file whose position is shared breaks this.
    """
    with s.opened() as dataset:
        wanted = _read(dataset)
        problems: list[BaseException] = []

        def work() -> None:
            try:
                _expect_same(_read(dataset), wanted, "beside other threads")
            except BaseException as error:
                problems.append(error)

        workers = [threading.Thread(target=work, daemon=True) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if problems:
            raise problems[0]


@check("data", "missing-files")
def missing_files(s: Subject) -> None:
    """Missing files raise an `InputError` that names what is missing.

    A wrong path in a recipe is the most common mistake.
    """
    with s.files() as folder:
        if not any(folder.iterdir()):
            raise NotApplicable("its example reads no files")
    with tempfile.TemporaryDirectory() as empty:
        try:
            dataset = s.make().open(Path(empty))
        except InputError as error:
            expect(bool(error.where), "an error with a location (`where`)", str(error))
            return
        except Exception as error:
            fail("an InputError for an empty folder", f"{type(error).__name__}: {error}")
        fail("an InputError for an empty folder", f"a dataset of {len(dataset)} samples")


@check("data", "damaged-files")
def damaged_files(s: Subject) -> None:
    """A truncated file raises an `InputError`, when it is opened or when it is read.

    Downloads break off. Training then stops, or skips and counts the file, as the recipe says; a decoder's own
    exception would end training without naming the file.
    """
    with s.files() as folder:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            raise NotApplicable("its example reads no files")
        for path in files:
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            name = path.relative_to(folder)
            try:
                _plain(_read(s.make().open(folder)))
            except LdmkitError as error:
                family = isinstance(error, InputError)
                expect(family, f"an InputError for {name} cut in half", f"{type(error).__name__}: {error}")
            except Exception as error:
                fail(f"an InputError for {name} cut in half", f"{type(error).__name__}: {error!s:.300}")
            path.write_bytes(whole)
