"""The pipeline spec: the parts, their configs and their wiring. Strictly validated, and serialisable as JSON."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

from pydantic import Field, field_validator

from ldmkit.bounds import MAX_SIDE, MAX_STEPS
from ldmkit.contracts.arguments import DtypeName
from ldmkit.contracts.value import Value
from ldmkit.errors import InputError, SpecError, shown

SPEC_VERSION: Literal[1] = 1

SPEC_FILE = "pipeline.json"
"""File name of the spec in the folder of a saved pipeline."""

Verify: TypeAlias = Literal["fast", "full", "off"]
"""How files are verified against their digests when a saved folder is loaded."""

Side: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SIDE)]

Locked: TypeAlias = Literal["sampler", "grid", "guidance", "steps"]

Spec = TypeVar("Spec", bound=Value)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def check_names(names: Iterable[str]) -> None:
    """Check the names of parts, which become file names.

    Raises:
        SpecError: `name`: it is not a plain identifier.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            fits = "a letter, then letters, digits, - or _"
            raise SpecError("name", f"{name!r} cannot be the name of a part", fits=fits)


class FileDigest(Value):
    """The digests of a file of a saved model.

    Args:
        size: bytes.
        sha256: 64 hex digits, of the whole file.
        pages: 32 hex digits, of the sums of its 4 KiB pages (`ldmkit.models.digests.page_sums`); weight files only.
    """

    size: int = Field(ge=0)
    sha256: str
    pages: str | None = None


class PartSpec(Value):
    """A part by its registered name and config, with the distribution and version that provided it."""

    type: str
    config: dict[str, Any] = Field(default_factory=dict)
    distribution: str | None = None
    version: str | None = None


class SavedPart(PartSpec):
    """An individually saved part, with the digests of its files and of its spec as in `PipelineSpec`."""

    files: dict[str, FileDigest] | None = None
    digest: str | None = None


class ConditionerSpec(PartSpec):
    """A conditioner and its wiring.

    Args:
        slot: denoiser slot to fill; None for the only one of its kind.
        null: replacement for a dropped condition: the conditioner's own null, zeros, or `keep` (never dropped).
        input: name of the caller's input that feeds it; None for the conditioner's name.
        shares: name of another conditioner whose weights it uses.
    """

    slot: str | None = None
    null: Literal["default", "zero", "keep"] = "default"
    input: str | None = None
    shares: str | None = None

    @property
    def wiring(self) -> dict[str, Any]:
        """The wiring fields, without those of the part itself."""
        return self.model_dump(include={"slot", "null", "input", "shares"})


class Defaults(Value):
    """Defaults of calls and of loading.

    Args:
        size: (height, width) in pixels; for other data one number per axis of the codec.
        locked: those of the other fields for which the model was distilled; a call with other values gives a warning.
        dtype: dtype of floating-point weights after loading; None keeps the dtypes of the files.
    """

    sampler: PartSpec = PartSpec(type="ddim")
    grid: PartSpec = PartSpec(type="leading")
    guidance: PartSpec = PartSpec(type="none")
    steps: int = Field(default=30, ge=1, le=MAX_STEPS)
    size: tuple[Side, ...] | None = None
    locked: tuple[Locked, ...] | None = Field(default=None, min_length=1)
    dtype: DtypeName | None = None


class PipelineSpec(Value):
    """Everything needed to compose a pipeline, except the weights.

    For a saved pipeline, `files` has the digests of its files by relative path, and `digest` the SHA-256 of the spec
    without that key.
    """

    format: Literal["ldmkit-pipeline"] = "ldmkit-pipeline"
    version: Literal[1] = SPEC_VERSION
    codec: PartSpec
    denoiser: PartSpec
    process: PartSpec
    conditioners: dict[str, ConditionerSpec] = Field(default_factory=dict)
    adapters: dict[str, PartSpec] = Field(default_factory=dict)
    defaults: Defaults = Defaults()
    files: dict[str, FileDigest] | None = None
    digest: str | None = None

    @field_validator("conditioners", "adapters")
    @classmethod
    def _names(cls, parts: dict[str, Any]) -> dict[str, Any]:
        check_names(parts)
        return parts

    @classmethod
    def read(cls, data: Mapping[str, Any], where: str = "spec") -> PipelineSpec:
        """A spec from parsed JSON.

        Raises:
            SpecError: unknown or misspelt keys (with path and suggestion), a newer spec version, invalid values.
        """
        return read_spec(cls, data, where)

    def parts(self) -> dict[str, PartSpec]:
        """Every part by its path: `codec`, `conditioners.text` ..."""
        named: dict[str, PartSpec] = {"codec": self.codec, "denoiser": self.denoiser, "process": self.process}
        named |= {f"conditioners.{name}": part for name, part in self.conditioners.items()}
        return named | {f"adapters.{name}": part for name, part in self.adapters.items()}

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON data."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def hash(self) -> str:
        """16 hex digits, a hash of the spec without versions of distributions and digests of files."""
        parts = _without_versions({k: v for k, v in self.to_json().items() if k not in ("files", "digest")})
        canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def read_spec(cls: type[Spec], data: object, where: str) -> Spec:
    """A spec of some class from parsed JSON.

    Raises:
        SpecError: unknown or misspelt keys (with path and suggestion), a newer spec version, bad values.
    """
    if not isinstance(data, Mapping):
        raise SpecError("invalid", f"a spec must be a JSON object, got {type(data).__name__}", where=where)
    version = data.get("version", SPEC_VERSION)
    if isinstance(version, int) and version > SPEC_VERSION:
        what = f"version {version} was written by a newer ldmkit; this one reads up to {SPEC_VERSION}"
        raise SpecError("newer-version", what, where=where)
    return cls.of(data, where)


def owners_of(conditioners: Mapping[str, ConditionerSpec]) -> dict[str, str]:
    """Path of each conditioner that shares weights -> path of the conditioner that owns them."""
    shares = {name: part.shares for name, part in conditioners.items() if part.shares is not None}
    return {f"conditioners.{name}": f"conditioners.{owner}" for name, owner in shares.items()}


def _without_versions(data: Any) -> Any:
    if isinstance(data, dict):
        skip = {"version", "distribution"} if "type" in data else set()
        return {k: _without_versions(v) for k, v in data.items() if k not in skip}
    return [_without_versions(v) for v in data] if isinstance(data, list) else data


def check_verify(verify: object) -> Verify:
    """`verify`, checked to be "fast", "full" or "off".

    Raises:
        InputError: `verify`.
    """
    if not isinstance(verify, str) or verify not in get_args(Verify):
        raise InputError("verify", f"got {shown(verify)}", where="verify", fits=", ".join(get_args(Verify)))
    return verify  # type: ignore[return-value]
