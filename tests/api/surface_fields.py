"""Fields of public values, of in-tree parts' configs, of conditioners' inputs and of recipes; the schema of specs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, get_args, is_typeddict

from pydantic import BaseModel
from surface_render import facts, field_text, type_text

import ldmkit
from ldmkit.contracts.value import Value
from ldmkit.models.spec import SPEC_VERSION, PipelineSpec
from ldmkit.plugins.catalogue import HOME, Entry, catalogue, load_entry
from ldmkit.plugins.kinds import GROUPS

PROSE = frozenset({"title", "description"})
"""Words of a JSON schema that are for people: they may be put better at any time."""


def in_tree() -> list[Entry]:
    """Every part of a kind that comes with ldmkit."""
    return [entry for entry in catalogue() if entry.dist == HOME and entry.kind in GROUPS]


def values() -> list[str]:
    """One line a field."""
    lines: list[str] = []
    inner: list[Any] = []
    for name in ldmkit.__all__:
        value = getattr(ldmkit, name)
        if inspect.isclass(value) and issubclass(value, Value):
            lines += _fields(f"ldmkit.{name}", value, inner)
    for entry in in_tree():
        cls = load_entry(entry)
        path = f"{entry.kind}:{entry.name}"
        config = getattr(cls, "Config", cls)
        lines += _fields(path, config, inner) or [f"{path}: no fields"]
        if entry.kind == "conditioner":
            lines.append(f"{path} input: {type_text(cls.Input)}")
            _note(cls.Input, inner)
    return lines + sorted(_inner(inner))


def _fields(path: str, cls: type[BaseModel], inner: list[Any]) -> list[str]:
    for field in cls.model_fields.values():
        _note(field.annotation, inner)
    return [f"{path}.{name}: {field_text(field)}" for name, field in cls.model_fields.items()]


def _note(kind: Any, inner: list[Any]) -> None:
    """Remember the models and typed dictionaries inside a type."""
    if inspect.isclass(kind) and (issubclass(kind, BaseModel) or is_typeddict(kind)) and kind not in inner:
        inner.append(kind)
    for argument in get_args(kind):
        _note(argument, inner)


def _inner(inner: list[Any]) -> Iterator[str]:
    """Values that are fields of others, and those inside them: the list grows while it is gone through."""
    for kind in inner:
        # two packages may each have a `CodecSection`
        same = sum(other.__name__ == kind.__name__ for other in inner) > 1
        path = f"value {kind.__module__.split('.', 1)[1] + '.' if same else ''}{kind.__name__}"
        if issubclass(kind, BaseModel):
            yield from _fields(path, kind, inner)
            continue
        for key, note in inspect.get_annotations(kind, eval_str=True).items():
            _note(note, inner)
            yield f"{path}.{key}: {type_text(note)}"


def spec() -> list[str]:
    """Version and JSON schema of saved pipelines' `pipeline.json`."""
    schema = PipelineSpec.model_json_schema()
    return [f"spec version {SPEC_VERSION}", *facts(schema, leave_out=PROSE)]


def recipe() -> list[str]:
    """Fields of training recipes, one line each."""
    from ldmkit_training.before.recipe import recipe_class

    inner: list[Any] = []
    names = [entry.name for entry in in_tree() if entry.kind == "stage"]
    lines = [line for name in names for line in _fields(f"recipe of a {name}", recipe_class(name), inner)]
    return lines + sorted(_inner(inner))
