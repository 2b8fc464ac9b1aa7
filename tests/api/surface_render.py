"""Types, values and signatures as text that is the same on every run, machine and supported version of Python."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Annotated, Any, ForwardRef, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


def type_text(kind: Any) -> str:
    """A type as one would write it in a source file; annotations that are text already stay as they are."""
    if isinstance(kind, str):
        return " ".join(kind.split())
    if isinstance(kind, ForwardRef):
        return type_text(kind.__forward_arg__)
    if kind is None or kind is type(None):
        return "None"
    if kind is Ellipsis:
        return "..."
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return ", ".join([type_text(arguments[0]), *metadata_texts(arguments[1:])])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin in (Union, types.UnionType):
        return " | ".join(bracketed(type_text(arg)) for arg in arguments)
    if isinstance(kind, list):  # the arguments of a Callable
        return f"[{', '.join(map(type_text, kind))}]"
    if origin is not None:
        name = getattr(origin, "__name__", str(origin))
        return f"{name}[{', '.join(bracketed(type_text(arg)) for arg in arguments)}]"
    return getattr(kind, "__name__", None) or str(kind).removeprefix("typing.")


def bracketed(text: str) -> str:
    """Constraints of an inner type, told apart from those of the outer one."""
    return f"({text})" if ", " in text and not text.endswith("]") else text


def metadata_texts(metadata: Any) -> Iterator[str]:
    """Constraints and validators of an annotated type."""
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from metadata_texts(item.metadata)
            continue
        validator = getattr(item, "func", None)
        if validator is not None:
            yield f"{type(item).__name__}({getattr(validator, '__name__', type(validator).__name__)})"
        elif type(item).__name__ == "_PydanticGeneralMetadata":
            yield ", ".join(f"{key}={value!r}" for key, value in sorted(vars(item).items()))
        else:
            yield repr(item) if " at 0x" not in repr(item) else type(item).__name__


def value_text(value: Any) -> str:
    """A default or a class attribute: plain data as Python writes it, everything else by its name."""
    if isinstance(value, BaseModel):
        inner = json.dumps(value.model_dump(mode="json", exclude_unset=True), sort_keys=True)
        return f"{type(value).__name__}({inner})"
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, (str, bytes, int, float, bool, type(None))):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{value_text(k)}: {value_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        defaults = type(value)._field_defaults
        told = {key: item for key, item in value._asdict().items() if key not in defaults or item != defaults[key]}
        return f"{type(value).__name__}({', '.join(f'{key}={value_text(item)}' for key, item in told.items())})"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(value_text, value))
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(value_text, value))) + "}"
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    return name if isinstance(name, str) else f"<{type(value).__name__}>"


def signature_text(function: Any, bound: bool = False) -> str:
    """`(a: int, *, b: str = 'x') -> None`; `bound` leaves out self or cls."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1 if bound else 0 :]
    shown: list[str] = []
    starred = False
    for position, parameter in enumerate(parameters):
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            shown.append("*")
            starred = True
        shown.append(parameter_text(parameter))
        starred = starred or parameter.kind is parameter.VAR_POSITIONAL
        after = parameters[position + 1].kind if position + 1 < len(parameters) else None
        if parameter.kind is parameter.POSITIONAL_ONLY and after is not parameter.POSITIONAL_ONLY:
            shown.append("/")
    returned = signature.return_annotation
    arrow = "" if returned is inspect.Signature.empty else f" -> {type_text(returned)}"
    return f"({', '.join(shown)}){arrow}"


def parameter_text(parameter: inspect.Parameter) -> str:
    """One parameter with its annotation and default."""
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = stars + parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {type_text(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        text += f" = {value_text(parameter.default)}"
    return text


def field_text(field: FieldInfo) -> str:
    """A pydantic field: type, constraints, default."""
    parts = [type_text(field.annotation), *metadata_texts(field.metadata)]
    if field.discriminator is not None:
        parts.append(f"discriminator {field.discriminator!r}")
    if field.alias is not None:
        parts.append(f"alias {field.alias!r}")
    if field.default_factory is not None:
        made = field.default_factory
        parts.append(f"default {made.__name__}()" if made in (list, dict, tuple, set) else "default made when needed")
    elif field.default is not PydanticUndefined:
        parts.append(f"default {value_text(field.default)}")
    else:
        parts.append("required")
    return ", ".join(parts)


def facts(data: Any, path: str = "$", leave_out: frozenset[str] = frozenset()) -> Iterator[str]:
    """JSON data, one line a leaf."""
    if isinstance(data, Mapping):
        if not data:
            yield f"{path} = {{}}"
        for key, value in data.items():
            # a property may be called `title`: only the words of the schema itself are left out
            if key in leave_out and not path.endswith((".properties", ".$defs")):
                continue
            yield from facts(value, f"{path}.{key}", leave_out)
    elif isinstance(data, list) and any(isinstance(item, (Mapping, list)) for item in data):
        for i, item in enumerate(data):
            yield from facts(item, f"{path}[{i}]", leave_out)
    else:
        yield f"{path} = {json.dumps(data, ensure_ascii=False)}"
