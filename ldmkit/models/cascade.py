"""The spec of a cascade: pipelines in order, and what each passes to later ones. Strict; converts to and from JSON."""

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
"""Name of the spec's file in the folder of a saved cascade; each stage is a subfolder."""

LATENTS = "latents"


class Handover(NamedTuple):
    """What an earlier stage passes on: its decoded data (a picture, a vector ...), or its latents."""

    stage: str
    latents: bool = False

    @classmethod
    def of(cls, text: str, where: str) -> Handover:
        """Parse `base` or `base.latents`.

        Raises:
            SpecError: `handover`.
        """
        stage, dot, what = text.partition(".")
        if dot and what != LATENTS:
            fits = f"{stage} (its decoded data) or {stage}.{LATENTS}"
            raise SpecError("handover", f"a stage has no output {what!r}", where=where, fits=fits)
        return cls(stage, bool(dot))


class Target(NamedTuple):
    """Where it goes: an input of a stage, or a field of an input that is a mapping."""

    name: str
    field: str | None = None

    @classmethod
    def of(cls, key: str) -> Target:
        """Parse `low` or `low.image`."""
        name, dot, field = key.partition(".")
        return cls(name, field if dot else None)

    def put(self, row: Mapping[str, Any], value: Any) -> dict[str, Any]:
        """A row of inputs with the value put in."""
        if self.field is None:
            return {**row, self.name: value}
        return {**row, self.name: {**row.get(self.name, {}), self.field: value}}

    def is_set(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of inputs already has a value there."""
        own = row.get(self.name)
        return own is not None and (self.field is None or not isinstance(own, Mapping) or self.field in own)


class StageStart(Value):
    """A stage that continues from the picture of an earlier one: a refiner, or a second pass at a larger size.

    Args:
        stage: the earlier stage; if both stages share a codec and nothing is enlarged, its latents are used directly.
        strength: fraction of the steps to run, as for `ldmkit.Start`.
        enlarge: factor by which the picture is enlarged, with bicubic interpolation.
    """

    stage: str
    strength: float = Field(default=0.8, gt=0, le=1)
    enlarge: int = Field(default=1, ge=1, le=16)


class StageSpec(Value):
    """One stage: how its pipeline is connected to earlier ones.

    Args:
        inputs: input of this stage -> the earlier stage that it comes from, as `base` or `base.latents`. `low.image`
            is a field of the input `low`, whose other fields come from the caller.
        start: the earlier picture that it starts from, if any.
        shares: path of a part -> `stage.path` of the same part in an earlier stage, which is held and saved once.
        spec: hash of the pipeline's spec when the cascade was saved; None: not checked.
    """

    inputs: dict[str, str] = Field(default_factory=dict)
    start: StageStart | None = None
    shares: dict[str, str] = Field(default_factory=dict)
    spec: str | None = None

    def sources(self, where: str) -> dict[Target, Handover]:
        """Input -> where its value comes from."""
        return {Target.of(key): Handover.of(text, f"{where}.inputs.{key}") for key, text in self.inputs.items()}


class CascadeSpec(Value):
    """Stages in the order in which they run. A saved spec has `files` and `digest`, as in `PipelineSpec`."""

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
        """16 hex digits that depend on the stages and their wiring, but not on digests of files."""
        data = {key: value for key, value in self.to_json().items() if key not in ("files", "digest")}
        canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def check_order(stages: Mapping[str, StageSpec]) -> None:
    """Check that each stage depends only on earlier ones.

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
                fits = f"{stage}.{path}, with that part belonging to {stage} itself"
                where = f"stages.{name}.shares.{path}"
                raise SpecError("unknown-share", f"{text!r} cannot be shared as {path!r}", where=where, fits=fits)
        earlier.append(name)


def needed_by(name: str, stage: StageSpec) -> list[tuple[str, str]]:
    """(place in the spec, stage) of everything that a stage takes from others."""
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
        what = f"stage {name!r} depends on {source!r}, which itself depends on {name!r}"
        raise SpecError("stage-circle", what, where=where, fits="stages that depend only on earlier ones")
    what = f"stage {name!r} depends on {source!r}, which comes after it"
    raise SpecError("stage-order", what, where=where, fits=f"{source!r} before {name!r}")


@contextmanager
def at_stage(name: str) -> Iterator[None]:
    """Add the stage's name to errors raised inside the block."""
    try:
        yield
    except LdmkitError as error:
        error.where = f"stage {name!r}" + (f": {error.where}" if error.where else "")
        raise
