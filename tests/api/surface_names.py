"""What `ldmkit` and `ldmkit.testing` export: names, signatures, methods, attributes; kinds, groups and hooks."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from surface_render import signature_text, type_text, value_text

import ldmkit
from ldmkit.contracts.value import Value
from ldmkit.plugins import kinds
from ldmkit.plugins.hooks import Hooks

DUNDERS = ("__init__", "__call__", "__len__", "__getitem__", "__iter__", "__enter__", "__exit__", "__str__")


def names() -> list[str]:
    """One line a name, and one a member of it."""
    lines = list(_module(ldmkit)) + list(_module(import_module("ldmkit.testing")))
    lines += [f"kind {kind}: entry points of group {group}" for kind, group in kinds.GROUPS.items()]
    lines += [f"kind {kind}: {'module' if kind in kinds.MODULES else 'value'}" for kind in kinds.GROUPS]
    lines += [f"kind {kind}: API version {number}" for kind, number in getattr(kinds, "API", {}).items()]
    for what in ("HOOKS_GROUP", "COMMANDS_GROUP", "MODELS_GROUP"):
        lines.append(f"group of {what.split('_')[0].lower()}: {getattr(kinds, what)}")
    for name, hook in vars(Hooks).items():
        if inspect.isfunction(hook):
            options = {key: value for key, value in vars(hook)["ldmkit_spec"].items() if value}
            lines.append(f"hook {name}{signature_text(hook, bound=True)} {value_text(options)}")
    return lines


def _module(module: ModuleType) -> Iterator[str]:
    exported = [name for name in getattr(module, "__all__", ()) if name != "__version__"]
    values = {name: _value(module, name) for name in sorted(exported)}
    inside = {id(value) for value in values.values()}
    for name, value in values.items():
        path = f"{module.__name__}.{name}"
        if inspect.isclass(value):
            yield f"{path}: {_heading(value)}"
            order = getattr(value, "_fields", None) or getattr(value, "__dataclass_fields__", ())
            if order:
                yield f"{path}: fields in order: {', '.join(order)}"
            yield from sorted(f"{path}.{line}" for line in _members(value, inside))
        elif inspect.isfunction(value):
            yield f"{path}: function {signature_text(value)}"
        elif hasattr(value, "__origin__") or type(value).__name__ in ("UnionType", "TypeAliasType"):
            yield f"{path}: alias of {type_text(value)}"
        else:
            yield f"{path}: {type(value).__name__}"


def _value(module: ModuleType, name: str) -> Any:
    try:
        return getattr(module, name)
    except ImportError as error:
        return error  # shown by the name of its class, and found by `test_public_name_imports_and_is_documented`


def _heading(cls: type) -> str:
    if getattr(cls, "_is_protocol", False):
        return "protocol"
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
    return f"class ({bases})" if bases else "class"


def _members(cls: type, exported: set[int]) -> Iterator[str]:
    """Members that our own code defines; those of another exported class, and of its bases, stand there."""
    seen: set[str] = set()
    elsewhere = {base for one in cls.__mro__[1:] if id(one) in exported for base in one.__mro__}
    for owner in cls.__mro__:
        ours = owner.__module__.partition(".")[0] == "ldmkit"
        if not ours or owner in elsewhere:
            continue
        for name, line in _own(owner):
            if name not in seen:
                seen.add(name)
                yield line


def _own(owner: type) -> Iterator[tuple[str, str]]:
    fields = set(getattr(owner, "model_fields", ())) if issubclass(owner, Value) else set()
    notes = inspect.get_annotations(owner)
    for name, member in vars(owner).items():
        if _private(name, owner) or name in fields or (name in notes and not callable(member)):
            continue
        yield name, _member(name, member)
    for name, note in notes.items():
        if not _private(name, owner) and name not in fields:
            default = getattr(owner, "_field_defaults", vars(owner)).get(name, inspect.Parameter.empty)
            given = default is not inspect.Parameter.empty and not inspect.isdatadescriptor(default)
            yield name, f"{name}: {type_text(note)}{f' = {value_text(default)}' if given else ''}"
    for name in _set_by_init(owner):
        if name not in notes and name not in vars(owner):
            yield name, f"{name}: set by __init__"


def _private(name: str, owner: type) -> bool:
    if name in DUNDERS:  # those that dataclasses and pydantic make say nothing that the fields do not
        written = inspect.getsource(owner)
        return f"def {name}" not in written
    return name.startswith(("_", "model_"))


def _member(name: str, member: Any) -> str:
    abstract = "abstract " if getattr(member, "__isabstractmethod__", False) else ""
    if isinstance(member, staticmethod):
        return f"{name}: {abstract}static method {signature_text(member.__func__)}"
    if isinstance(member, classmethod):
        return f"{name}: {abstract}class method {signature_text(member.__func__, bound=True)}"
    getter = getattr(member, "fget", None) or getattr(member, "func", None)
    if getter is not None:
        returned = inspect.get_annotations(getter).get("return", "Any")
        return f"{name}: {abstract}property -> {type_text(returned)}"
    if inspect.isfunction(member):
        return f"{name}: {abstract}method {signature_text(member, bound=True)}"
    return f"{name} = {value_text(member)}"


def _set_by_init(owner: type) -> Iterator[str]:
    function = vars(owner).get("__init__")
    if not inspect.isfunction(function) or "def __init__" not in inspect.getsource(owner):
        return
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if not (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)):
            continue
        if isinstance(node.value, ast.Name) and node.value.id == "self" and not node.attr.startswith("_"):
            yield node.attr
