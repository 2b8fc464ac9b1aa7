"""Frozen value classes: the base of samplers, grids, processes, guidance, and of the configs of modules."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from ldmkit.contracts.exact import EXACT, exact
from ldmkit.errors import InputError, LdmkitError, SpecError, raised, shown, suggest
from ldmkit.files.numbers import plain

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic._internal._model_construction import ModelMetaclass
    from pydantic_core import CoreSchema
else:
    ModelMetaclass = type(BaseModel)

T = TypeVar("T")


class _Raising(ModelMetaclass):
    """Calling the class also accepts positional fields, and raises the errors of `of` instead of pydantic's."""

    def __call__(cls, *args: Any, **data: Any) -> Any:
        refusal: type[LdmkitError] = getattr(cls, "refusal", SpecError)
        names = list(getattr(cls, "model_fields", ()))
        duplicates = [name for name in names[: len(args)] if name in data]
        if len(args) > len(names) or duplicates:
            too_many = f"{len(args)} values for {len(names)} fields"
            what = f"multiple values for field {duplicates[0]!r}" if duplicates else too_many
            raise refusal("too-many-values", what, where=cls.__name__, fits=f"fields: {', '.join(names) or 'none'}")
        data = {**dict(zip(names, args, strict=False)), **data}
        return validated(lambda: super(_Raising, cls).__call__(**data), cls.__name__, refusal, cls)


class Value(BaseModel, metaclass=_Raising):
    """A frozen pydantic model, with repr, equality, hash and JSON.

    Unknown keys, NaN and infinities are refused, and values are not converted between types (`exact`): True is not
    accepted as 1, nor "3" as 3.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    refusal: ClassVar[type[LdmkitError]] = SpecError
    """The exception for invalid data: `SpecError`, or `InputError` for values that callers pass to a run."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return exact(handler(source))

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, data: Any) -> Any:
        return plain(data)

    @classmethod
    def of(cls, data: Mapping[str, Any] | Self, where: str = "") -> Self:
        """`data` validated as a value of this class.

        Raises:
            SpecError: with the path of the offending key and a suggestion. Subclasses set another type as `refusal`.
        """
        if isinstance(data, cls):
            return data
        return validated(lambda: cls.model_validate(data), where or cls.__name__, cls.refusal, cls)


def integer(value: object) -> int | None:
    """An integer of any library as an `int`; None for anything else, including True and False."""
    value = plain(value)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return None
    try:
        return operator.index(value)
    except Exception:  # an array of several numbers, a meta tensor, or a faulty __index__
        return None


def parse(kind: Any, data: Any, where: str) -> Any:
    """A raw input validated against any type that pydantic supports.

    Raises:
        InputError: with the path of the offending item.
    """
    return validated(lambda: _adapter(kind).validate_python(plain(data)), where, InputError, kind)


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """The type's adapter, cached if the type is hashable, because building one takes longer than a typical use."""
    try:
        return _cached_adapter(kind)
    except TypeError:
        return TypeAdapter(Annotated[kind, EXACT])


@lru_cache(maxsize=256)
def _cached_adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(Annotated[kind, EXACT])


def validated(make: Callable[[], T], where: str, error: type[LdmkitError], kind: Any) -> T:
    """Run a pydantic validation of `kind`; convert a failure into an `error` with path and suggestion."""
    try:
        return make()
    except ValidationError as failure:
        raise _converted(failure, where, error, kind) from None
    except LdmkitError as problem:
        # raised by a validator, which knows its own field but not the path of the value
        if not (problem.where or "").startswith(where):
            problem.where = f"{where}.{problem.where}" if problem.where else where
        raise
    except Exception as problem:  # the caller's mapping or list raised while it was read
        raise error("unreadable", f"reading it failed: {raised(problem)}", where=where) from problem


def _converted(failure: ValidationError, where: str, error: type[LdmkitError], kind: Any) -> LdmkitError:
    problems = failure.errors()
    # a misspelt key usually also leaves a required one missing; the misspelling is the cause
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    cause = first.get("ctx", {}).get("error")
    path = where + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
    if isinstance(cause, LdmkitError):
        return type(cause)(cause.code.split(".", 1)[1], cause.what, where=cause.where or path, fits=cause.fits)
    more = f"; {len(problems) - 1} more problem(s)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = _fields(kind, first["loc"][:-1])
        return error("unknown-key", f"unknown key {key!r}{more}", where=path, fits=suggest(key, known))
    if first["type"] == "missing":
        return error("missing-key", f"missing required key{more}", where=path)
    if first["type"] in ("union_tag_not_found", "union_tag_invalid"):
        context = first["ctx"]
        path += "." + context["discriminator"].strip("'")
        if first["type"] == "union_tag_not_found":
            return error("missing-key", f"missing required key{more}", where=path)
        fits = suggest(context["tag"], [tag.strip(" '") for tag in context["expected_tags"].split(",")])
        return error("invalid", f"unknown choice {context['tag']!r}{more}", where=path, fits=fits)
    message = first["msg"].removeprefix("Value error, ")
    return error("invalid", f"{message}; got {shown(first['input'])}{more}", where=path)


def _fields(kind: Any, path: Iterable[int | str]) -> list[str]:
    """Field names of the model at a path inside a type."""
    for step in path:
        inner = _model(kind)
        if inner is not None and step in inner.model_fields:
            kind = inner.model_fields[str(step)].annotation
        else:
            kind = next((arg for arg in reversed(get_args(kind)) if _model(arg) is not None), kind)
    inner = _model(kind)
    return list(inner.model_fields) if inner is not None else []


def _model(kind: Any) -> type[BaseModel] | None:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    found = [_model(arg) for arg in get_args(kind)]
    return next((model for model in found if model is not None), None)
