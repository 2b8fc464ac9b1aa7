"""Frozen values: samplers, grids, processes, guidance, and the configs of modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ldmkit.errors import InputError, LdmkitError, SpecError, suggest

T = TypeVar("T")


class Value(BaseModel):
    """A frozen pydantic model: config, repr, equality, hash and JSON come free.

    Unknown keys are errors, and NaN and infinities are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def of(cls, data: Mapping[str, Any] | Self, where: str = "") -> Self:
        """`data` as a validated value of this class.

        Raises:
            SpecError: with the path of the offending key and a suggestion.
        """
        if isinstance(data, cls):
            return data
        return validated(lambda: cls.model_validate(data), where or cls.__name__, SpecError, cls.model_fields)


def parse(kind: Any, data: Any, where: str) -> Any:
    """A raw input validated against any type pydantic understands.

    Raises:
        InputError: with the path of the offending item.
    """
    return validated(lambda: TypeAdapter(kind).validate_python(data), where, InputError, ())


def validated(make: Callable[[], T], where: str, error: type[LdmkitError], known: Iterable[str]) -> T:
    """Run a pydantic validation; turn its failure into one of our errors, with path and suggestion."""
    try:
        return make()
    except ValidationError as failure:
        raise _first(failure, where, error, known) from None


def _first(failure: ValidationError, where: str, error: type[LdmkitError], known: Iterable[str]) -> LdmkitError:
    problems = failure.errors()
    first = problems[0]
    cause = first.get("ctx", {}).get("error")
    path = where + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
    if isinstance(cause, LdmkitError):
        return type(cause)(cause.code.split(".", 1)[1], cause.what, where=cause.where or path, fits=cause.fits)
    more = f"; {len(problems) - 1} more problem(s)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        fits = suggest(key, known) if len(first["loc"]) == 1 else None
        return error("unknown-key", f"unknown key {key!r}{more}", where=path, fits=fits)
    if first["type"] == "missing":
        return error("missing-key", f"required, but not given{more}", where=path)
    shown = repr(first["input"])
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    message = first["msg"].removeprefix("Value error, ")
    return error("invalid", f"{message}; got {shown}{more}", where=path)
