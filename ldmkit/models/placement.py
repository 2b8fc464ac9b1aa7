"""Where the parts of a pipeline keep their weights, and when: a value chosen per pipeline, like a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from pydantic import Field

from ldmkit.contracts.arguments import DtypeName, mapping_of
from ldmkit.contracts.part import Part
from ldmkit.contracts.value import Value
from ldmkit.errors import InputError, LdmkitError, shown, suggest
from ldmkit.models.compose import Parts

When: TypeAlias = Literal["always", "at-use", "after-encoding", "streamed"]
Rest: TypeAlias = Literal["cpu", "disk"]

GROUPS = ("conditioners",)
"""Names that stand for several parts; an entry for a single part takes precedence."""


class PartPlacement(Value):
    """How one part keeps its weights.

    Args:
        when: when the weights are on the computing device. "always"; "at-use": while the part computes;
            "after-encoding": the same for a conditioner, whose weights leave once the conditions are encoded;
            "streamed": each block for its own call, while the next one is being fetched.
        dtype: dtype of its floating-point weights and of its computations; None: unchanged.
        stored: "int8": the weights of linear layers are kept as 8-bit integers with one scale per output, and
            dequantised to the part's dtype for each block's call, or when the part is fetched. None: unchanged.
    """

    refusal: ClassVar[type[LdmkitError]] = InputError

    when: When = "always"
    dtype: DtypeName | None = None
    stored: Literal["int8"] | None = None


class Placement(Value):
    """How the parts of a pipeline keep their weights; see `Pipeline.placed`.

    Args:
        parts: "codec", "denoiser", "conditioners" (all of them), or a conditioner's name -> how it is placed. Parts
            that are not named are always on the device.
        device: computing device; None: the denoiser's device.
        rest: where weights are kept while they are not on the device. "cpu": in main memory. "disk": in the files that
            they were loaded from, else in a temporary file. None: "disk" if the CPU computes, else "cpu".
    """

    refusal: ClassVar[type[LdmkitError]] = InputError

    parts: dict[str, PartPlacement] = Field(default_factory=dict)
    device: str | None = None
    rest: Rest | None = None

    @classmethod
    def read(cls, given: object) -> Placement:
        """A placement from a `Placement`, the name of a preset, spellings (`text:after-encoding+bfloat16`), or a
        mapping from names of parts to words, mappings or `PartPlacement`s.

        Raises:
            InputError: `placement`, `unknown-key`, `invalid`.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, str):
            given = given.replace(",", " ").split()
        if isinstance(given, Mapping):
            own = mapping_of(given, "placement", "part -> placement")
            if not (own.keys() & cls.model_fields.keys()):
                own = {"parts": own}
            parts = mapping_of(own.get("parts"), "placement.parts", "part -> placement")
            return cls.of({**own, "parts": {name: _part(value, name) for name, value in parts.items()}}, "placement")
        if isinstance(given, Sequence) and all(isinstance(word, str) for word in given):
            return cls._spelled(given)
        fits = f"a preset ({', '.join(PRESETS)}), 'part:word', a mapping from parts, or an ldmkit.Placement"
        raise InputError("placement", f"got {shown(given)}", where="placement", fits=fits)

    @classmethod
    def _spelled(cls, spellings: Iterable[str]) -> Placement:
        preset: dict[str, PartPlacement] = {}
        parts: dict[str, Any] = {}
        for spelling in spellings:
            name, colon, words = spelling.partition(":")
            if colon and name in parts:
                raise InputError("placement", f"{name!r} is placed twice", where="placement")
            if colon:
                parts[name] = _part(words, name)
            elif spelling in PRESETS:
                preset = PRESETS[spelling].parts
            else:
                fits = f"part:word, or a preset: {suggest(spelling, PRESETS)}"
                raise InputError("placement", f"got {spelling!r}", where="placement", fits=fits)
        return cls(parts={**preset, **parts})


def _part(given: object, name: str) -> PartPlacement | dict[str, Any]:
    """One part's placement, from words joined by + or from its fields."""
    if isinstance(given, PartPlacement):
        return given
    if not isinstance(given, str):
        return mapping_of(given, f"placement.{name}", "when, dtype, stored")
    fields: dict[str, Any] = {}
    for word in given.split("+"):
        if word not in _WORDS:
            raise InputError("placement", f"got {word!r}", where=f"placement.{name}", fits=suggest(word, _WORDS))
        if _WORDS[word] in fields:
            what = f"{fields[_WORDS[word]]!r} and {word!r} exclude each other"
            raise InputError("placement", what, where=f"placement.{name}")
        fields[_WORDS[word]] = word
    return PartPlacement(**fields)


_WORDS: dict[str, str] = {
    **dict.fromkeys(get_args(When), "when"),
    **dict.fromkeys(get_args(DtypeName), "dtype"),
    "int8": "stored",
}
"""Word of a spelling -> the field that it sets."""

PRESETS: dict[str, Placement] = {
    "low-memory": Placement(
        parts={"conditioners": PartPlacement(when="after-encoding"), "codec": PartPlacement(when="at-use")}
    ),
    "lowest-memory": Placement(
        parts={
            "conditioners": PartPlacement(when="after-encoding"),
            "codec": PartPlacement(when="at-use"),
            "denoiser": PartPlacement(when="streamed"),
        }
    ),
}
"""Placements by name. low-memory: only the denoiser stays on the device. lowest-memory: nothing does."""


def places_of(placement: Placement, parts: Parts, *, strict: bool = True) -> dict[str, PartPlacement]:
    """Path of a part (`codec`, `conditioners.text`) -> its placement, for parts that the placement names.

    Args:
        strict: refuse names of parts that do not exist.

    Raises:
        InputError: `unknown-part`; `placement`: the part cannot be placed that way.
    """
    own = {"codec": "codec", "denoiser": "denoiser", **{name: f"conditioners.{name}" for name in parts.conditioners}}
    own |= {path: path for path in own.values()}
    found: dict[str, PartPlacement] = {}
    for name, place in sorted(placement.parts.items(), key=lambda item: item[0] not in GROUPS or item[0] in own):
        if name in own:
            found[own[name]] = place
        elif name in GROUPS:
            found |= {f"conditioners.{one}": place for one in parts.conditioners}
        elif name in parts.adapters or name.startswith("adapters"):
            what = f"{name!r} is an adapter, which is always placed with the denoiser"
            raise InputError("placement", what, where="placement", fits="denoiser, codec, conditioners")
        elif strict:
            raise InputError("unknown-part", f"there is no part {name!r}", where="placement", fits=suggest(name, own))
    for path, place in found.items():
        if place.when == "after-encoding" and not path.startswith("conditioners."):
            what = "'after-encoding' is for conditioners"
            raise InputError("placement", what, where=f"placement.{path}", fits="at-use, streamed")
    return {path: place for path, place in found.items() if place != PartPlacement()}


def rounded_by(part: Part, place: PartPlacement) -> dict[str, str]:
    """The fields of a placement that change numerical results of a part; empty if none does."""
    fields: dict[str, str] = {} if place.stored is None else {"stored": place.stored}
    wanted = place.dtype
    if wanted is not None and str(part.dtype).removeprefix("torch.") != wanted:
        fields["dtype"] = wanted
    return fields
