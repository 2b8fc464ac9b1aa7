"""The spec of a cascade: pipelines in order, and what each hands on to later ones. Strict, and JSON both ways."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator

from ldmkit.contracts.value import Value
from ldmkit.errors import LdmkitError, SpecError, suggest
from ldmkit.models.spec import FileDigest, check_names, read_spec

CASCADE_FILE = "cascade.json"
"""What the spec is called in the folder of a saved cascade; each stage is a folder beside it."""

LATENTS = "latents"


class Handover(NamedTuple):
    """What an earlier stage hands on: its data (a picture, a vector ...) as decoded, or its latents."""

    stage: str
    latents: bool = False

    @classmethod
    def of(cls, text: str, where: str) -> Handover:
        """`base`, or `base.latents`.

        Raises:
            SpecError: `handover`.
        """
        stage, dot, what = text.partition(".")
        if dot and what != LATENTS:
            fits = f"{stage}, its data as decoded, or {stage}.{LATENTS}"
            raise SpecError("handover", f"a stage hands on no {what!r}", where=where, fits=fits)
        return cls(stage, bool(dot))


class Target(NamedTuple):
    """Where it goes: an input of a stage, or a field of one that is a mapping."""

    name: str
    field: str | None = None

    @classmethod
    def of(cls, key: str) -> Target:
        """`low`, or `low.image`."""
        name, dot, field = key.partition(".")
        return cls(name, field if dot else None)

    def put(self, row: Mapping[str, Any], value: Any) -> dict[str, Any]:
        """A row of inputs with the value in its place."""
        if self.field is None:
            return {**row, self.name: value}
        return {**row, self.name: {**row.get(self.name, {}), self.field: value}}

    def taken(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of inputs has something in its place."""
        own = row.get(self.name)
        return own is not None and (self.field is None or not isinstance(own, Mapping) or self.field in own)


class StageStart(Value):
    """A stage that goes on from the picture of an earlier one: a refiner, or a second pass at a larger size.

    Args:
        stage: whose picture; its latents where both stages have one codec and nothing is enlarged.
        strength: share of the steps that are run, as of `ldmkit.Start`.
        enlarge: how many times the height and width of that picture, by bicubic interpolation.
    """

    stage: str
    strength: float = Field(default=0.8, gt=0, le=1)
    enlarge: int = Field(default=1, ge=1, le=16)


class StageSpec(Value):
    """One stage: how its pipeline hangs together with the others.

    Args:
        inputs: input of this stage -> the earlier stage that it comes from, `base`, or `base.latents`; `low.image` is a
            field of the input `low`, whose other fields are the caller's.
        start: what it starts from, if that is an earlier stage's picture.
        shares: path of a part -> `stage.path` of the same part of an earlier stage, which is held and saved once.
        spec: hash of the pipeline's spec when the cascade was saved; None: any.
    """

    inputs: dict[str, str] = Field(default_factory=dict)
    start: StageStart | None = None
    shares: dict[str, str] = Field(default_factory=dict)
    spec: str | None = None

    def sources(self, where: str) -> dict[Target, Handover]:
        """Input -> what is handed on to it."""
        return {Target.of(key): Handover.of(text, f"{where}.inputs.{key}") for key, text in self.inputs.items()}


class CascadeSpec(Value):
    """Stages in the order in which they run. `files` and `digest` are those of a saved one, as of `PipelineSpec`."""

    format: Literal["ldmkit-cascade"] = "ldmkit-cascade"
    version: Literal[1] = 1
    stages: dict[str, StageSpec] = Field(min_length=1, max_length=64)
    files: dict[str, FileDigest] | None = None
    digest: str | None = None

    @field_validator("stages")
    @classmethod
    def _names(cls, stages: dict[str, Any]) -> dict[str, Any]:
        check_names(stages)
        return stages

    @classmethod
    def read(cls, data: Mapping[str, Any], where: str = "cascade") -> CascadeSpec:
        """A spec from parsed JSON.

        Raises:
            SpecError: unknown or misspelt keys, a newer version, bad values; and those of `check_order`.
        """
        spec = read_spec(cls, data, where)
        check_order(spec.stages)
        return spec

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON data."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def hash(self) -> str:
        """16 hex digits that change when a stage or what connects them does; digests of files do not count."""
        data = {key: value for key, value in self.to_json().items() if key not in ("files", "digest")}
        canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def check_order(stages: Mapping[str, StageSpec]) -> None:
    """Each stage takes from earlier ones alone.

    Raises:
        SpecError: `unknown-stage`, `stage-circle`, `stage-order`; `handover`; `unknown-share`.
    """
    wanted = {name: needed_by(name, stage) for name, stage in stages.items()}
    earlier: list[str] = []
    for name, needs in wanted.items():
        for where, source in needs:
            if source not in stages:
                fits = suggest(source, [one for one in stages if one != name])
                raise SpecError("unknown-stage", f"there is no stage {source!r}", where=where, fits=fits)
            if source not in earlier:
                _refuse_order(name, source, wanted, where)
        for path, text in stages[name].shares.items():
            stage, _, other = text.partition(".")
            if other != path or path in stages[stage].shares:
                fits = f"{stage}.{path}, where that stage has it of its own"
                where = f"stages.{name}.shares.{path}"
                raise SpecError("unknown-share", f"{text!r} is no part to share as {path!r}", where=where, fits=fits)
        earlier.append(name)


def needed_by(name: str, stage: StageSpec) -> list[tuple[str, str]]:
    """(place in the spec, stage) of all that a stage takes from others."""
    where = f"stages.{name}"
    made = zip(stage.inputs, stage.sources(where).values(), strict=True)
    found = [(f"{where}.inputs.{key}", source.stage) for key, source in made]
    found += [] if stage.start is None else [(f"{where}.start.stage", stage.start.stage)]
    return found + [(f"{where}.shares.{path}", text.partition(".")[0]) for path, text in stage.shares.items()]


def _refuse_order(name: str, source: str, wanted: Mapping[str, list[tuple[str, str]]], where: str) -> None:
    waiting, behind = [source], set[str]()
    while waiting:
        one = waiting.pop()
        behind.add(one)
        waiting += [stage for _, stage in wanted.get(one, ()) if stage not in behind]
    if name in behind:
        what = f"stage {name!r} waits for {source!r}, which waits for {name!r} itself"
        raise SpecError("stage-circle", what, where=where, fits="stages that take from earlier ones")
    what = f"stage {name!r} takes from {source!r}, which comes after it"
    raise SpecError("stage-order", what, where=where, fits=f"{source!r} before {name!r}")


@contextmanager
def at_stage(name: str) -> Iterator[None]:
    """Errors inside the block say which stage they are of."""
    try:
        yield
    except LdmkitError as error:
        error.where = f"stage {name!r}" + (f": {error.where}" if error.where else "")
        raise
