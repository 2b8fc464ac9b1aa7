"""The `data` section of a recipe, and opening the sources that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ldmkit import Data, Dataset, InputError, PartSpec, SpecError, Value, build_value, suggest
from ldmkit.models.spec import Side
from ldmkit_training.data.bucket_section import BucketsSection
from ldmkit_training.data.captions import CaptionRule
from ldmkit_training.data.numbering import numbered_like

Share = Annotated[float, Field(gt=0, le=1)]


class CacheSection(Value):
    """Latents that are encoded once and kept on disk.

    Args:
        folder: relative to the recipe's; it holds this cache and nothing else.
        views: random crops and mirrors kept of each picture; one of them is drawn whenever it is used.
        dtype: of the numbers on disk.
        deviation: keep the posterior's standard deviation too; False: training sees the mode, for half the work.
        batch: pictures encoded at once.
    """

    folder: str = Field(min_length=1)
    views: int = Field(default=1, ge=1, le=1000)
    dtype: Literal["float32", "float16"] = "float32"
    deviation: bool = True
    batch: int = Field(default=32, ge=1)


class DataSection(Value):
    """What is trained on, and how it becomes batches.

    Args:
        train, validation: parts of kind `data`; `join` combines several.
        size: (height, width) of the pictures that training sees.
        fit: how a picture gets that size. resize: stretched to it; crop: the largest centred window of its
            proportions, resized; random-crop: a window whose sides are a share in `crop_scale` of the largest one's,
            anywhere; exact: it has that size already, or is an error.
        crop_scale: least and largest share of random crops, as in the published training code.
        buckets: sizes of the area of `size` for pictures of mixed proportions, see `BucketsSection`; `fit`, which is
            then `crop` unless said, is to the bucket's size; null: all pictures have `size`.
        mirror: probability of a picture being mirrored left to right, boxes and maps with it.
        batch: rows of an optimiser step, over all processes and accumulated parts.
        captions: name of a text in the data -> what becomes of it whenever it is used, see `CaptionRule`.
        held_out: number of samples of `train`, or below 1 a share of them, that are held out, in place of `validation`:
            chosen by their pictures' content, so that the same picture is never on both sides.
        workers: processes that read ahead; 0: a thread does. The results are the same.
        inputs: name in the data -> name of the model's input.
        moves: name in the data -> whether crops and mirrors change it. By default boxes, maps, and what lies on the
            latents as it lies on the picture (a hint, a mask) do; false: it does not lie on the picture; true: a
            picture that is read as tokens or a vector does.
        extract: name of an input -> the extractor that makes it of the picture as training sees it, cropped and moved
            (`hint: {type: canny}`).
        damaged: what happens at a file that cannot be read, or inputs that the model does not take; `skip` takes the
            next sample instead, and counts.
        cache: see `CacheSection`; null: pictures are read whenever they are used.
    """

    train: PartSpec
    validation: PartSpec | None = None
    size: tuple[Side, Side]
    fit: Literal["resize", "crop", "random-crop", "exact"] = "resize"
    crop_scale: tuple[Share, Share] = (0.5, 1.0)
    buckets: BucketsSection | None = None
    mirror: float = Field(default=0.0, ge=0, le=1)
    batch: int = Field(default=32, ge=1, le=65536)
    captions: dict[str, CaptionRule] = Field(default_factory=dict)
    held_out: Annotated[float, Field(gt=0)] | None = None
    workers: int = Field(default=0, ge=0, le=256)
    inputs: dict[str, str] = Field(default_factory=dict)
    moves: dict[str, bool] = Field(default_factory=dict)
    extract: dict[str, PartSpec] = Field(default_factory=dict)
    damaged: Literal["stop", "skip"] = "stop"
    cache: CacheSection | None = None

    @model_validator(mode="before")
    @classmethod
    def _cropped_to_buckets(cls, data: Any) -> Any:
        bucketed = isinstance(data, dict) and data.get("buckets") is not None
        return {**data, "fit": "crop"} if bucketed and "fit" not in data else data

    @model_validator(mode="after")
    def _consistent(self) -> DataSection:
        if self.buckets is not None:
            if self.fit == "exact":
                raise SpecError("bucket-fit", "pictures in buckets have other sizes than theirs", where="data.fit",
                                fits="crop, random-crop or resize")  # fmt: skip
            self.buckets.sizes(self.size)
        if self.held_out is not None:
            if self.validation is not None:
                what = "a part of data.train is held out, and data.validation is there too"
                raise SpecError("held-out-twice", what, where="data.held_out", fits="one of them")
            if self.held_out > 1 and self.held_out != int(self.held_out):
                raise ValueError(f"held_out {self.held_out} is neither a share below 1 nor a whole number")
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale {list(self.crop_scale)}: the smaller share stands first")
        if self.cache is not None and self.cache.views == 1 and self.random:
            what = "one cached view a picture cannot hold random crops or mirrors"
            fits = "views: 4, say; or mirror: 0 and fit: crop"
            raise SpecError("one-view", what, where="data.cache.views", fits=fits)
        return self

    @property
    def random(self) -> bool:
        """Whether a sample looks different from one epoch to the next."""
        return self.fit == "random-crop" or self.mirror > 0

    def at(self, size: tuple[int, int]) -> DataSection:
        """The section for pictures of one bucket."""
        return self.model_copy(update={"size": size})


def open_data(section: DataSection, folder: Path) -> tuple[Dataset, Dataset | None]:
    """The training and validation data that a section names; relative paths start from `folder`, the recipe's.

    Raises:
        PluginError, SpecError: of the parts; `unknown-input` for one in `inputs`, `moves` or `captions` that is not in
            the data.
        InputError: files that are missing or wrong; `no-samples`.
    """
    train = open_part(section.train, folder, "data.train")
    validation = None if section.validation is None else open_part(section.validation, folder, "data.validation")
    for key, named in (("inputs", section.inputs), ("moves", section.moves), ("captions", section.captions)):
        for name in named:
            if name not in train.geometry and not (key == "captions" and section.captions[name].shares):
                what = f"the data have no input {name!r}"
                raise SpecError("unknown-input", what, where=f"data.{key}.{name}", fits=suggest(name, train.geometry))
    for name, rule in section.captions.items():
        for source in rule.shares:
            if source not in train.geometry:
                what = f"the data have no caption {source!r}"
                where = f"data.captions.{name}.shares.{source}"
                raise SpecError("unknown-input", what, where=where, fits=suggest(source, train.geometry))
    renamed_names(train, section)
    return train, None if validation is None else numbered_like(train, validation)


def mixed_texts(section: DataSection) -> set[str]:
    """Names of the texts in the data from which captions are mixed by shares."""
    return {source for rule in section.captions.values() for source in rule.shares}


def data_notes(train: Dataset, validation: Dataset | None) -> list[str]:
    """What was left out, mended or drawn otherwise in the data of a run: said when it begins, and in its plan."""
    held = () if validation is None else validation.notes
    return [*train.notes, *(f"held out: {note}" for note in held if note not in train.notes)]


def open_part(spec: PartSpec, folder: Path, where: str) -> Dataset:
    """One source, opened and not empty; the errors of `open_data`."""
    source: Data = build_value("data", spec, where)
    dataset = source.open(folder)
    if len(dataset) == 0:
        raise InputError("no-samples", f"the source {spec.type!r} has no samples", where=where)
    return dataset


def renamed_names(dataset: Dataset, section: DataSection) -> dict[str, str]:
    """Name in the data -> name of the model's input, for every input that the data may have.

    Raises:
        SpecError: `input-twice`: two become the same.
    """
    mixed = [name for name, rule in section.captions.items() if rule.shares and name not in dataset.geometry]
    names = [*dataset.geometry, *section.extract, *mixed]
    renamed = {name: section.inputs.get(name, name) for name in names}
    if twice := set(dataset.geometry) & set(section.extract):
        what = f"the data have an input {min(twice)!r}, and one is extracted"
        raise SpecError("input-twice", what, where=f"data.extract.{min(twice)}", fits="another name")
    first: dict[str, str] = {}
    for name, new in renamed.items():
        if first.setdefault(new, name) != name:
            what = f"the inputs {first[new]!r} and {name!r} would both be {new!r}"
            raise SpecError("input-twice", what, where="data.inputs", fits="a name of its own for each")
    return renamed
