"""The pages of docs/reference, one a kind of part and a catalogue, made from docstrings and JSON schemas.

`python .ci/reference_pages.py --write` brings them up to date; without, it names those that are not.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from ldmkit.contracts.conditioner_abilities import ABILITIES
from ldmkit.plugins.kinds import COMMANDS_GROUP, GROUPS, MODELS_GROUP, contract_of

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
MADE = "<!-- Made by: python .ci/reference_pages.py --write -->"
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
PLURALS = {"guidance": "guidance", "data": "data", "perceptual": "perceptual distances", "process": "processes"}
BESIDE = {
    "conditioner": [f"conditioner_abilities.{cls.__name__}" for cls in ABILITIES],
    "adapter": ["adapter.Fusable", "ports.Port", "ports.Gate", "ports.Tap", "ports.GateTap"],
    "guidance": ["guidance.Evaluate", "guidance.Perturbed"],
    "data": ["data.Dataset", "data.Sample"],
    "stage": ["stage.Turn", "stage.Batch", "stage.Loss", "stage.StageSetup"],
}
"""kind -> what else of `ldmkit.contracts` its parts implement or are given."""
LONG = 72
"""Longest default that is shown in a table."""


class Described(NamedTuple):
    """A docstring: its text, and what it says of each argument."""

    text: str
    args: dict[str, str]


class Lenient(GenerateJsonSchema):
    """Names what JSON cannot hold instead of failing."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        return {"type": "not JSON"}

    def emit_warning(self, kind: Any, detail: str) -> None:
        """Defaults that are no JSON are left out, without a word."""


def pages() -> dict[Path, str]:
    """Every page by its path."""
    made = {FOLDER / f"{kind}.md": _kind_page(kind) for kind in GROUPS}
    return {FOLDER / "index.md": _catalogue(), **made}


def entries(group: str) -> dict[str, str]:
    """name -> module:Class of the in-tree parts of an entry-point group, sorted."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict(sorted(project["entry-points"].get(group, {}).items()))


def plural(kind: str) -> str:
    """`codec` -> `codecs`."""
    return PLURALS.get(kind, f"{kind}s")


def _loaded(value: str) -> Any:
    module, _, name = value.partition(":")
    return getattr(import_module(module), name)


def described(documented: Any) -> Described:
    """The docstring of a class, taken apart; sections other than arguments stay in the text."""
    doc = inspect.cleandoc(vars(documented).get("__doc__") or "")
    head, _, rest = doc.partition("Args:\n") if not doc.startswith("Args:\n") else ("", "", doc[6:])
    args: dict[str, str] = {}
    names: list[str] = []
    lines = rest.splitlines()
    for number, line in enumerate(lines):
        if line and not line.startswith(" "):
            head += "\n".join(lines[number:])
            break
        found = re.match(r"    (\w+(?:, \w+)*): ?(.*)", line)
        if found and not line.startswith("     "):
            names = found[1].split(", ")
            args |= dict.fromkeys(names, found[2])
        elif names and line.strip():
            args |= {name: f"{args[name]} {line.strip()}" for name in names}
    return Described(head.strip(), args)


def _catalogue() -> str:
    lines = [MADE, "", "# Parts that come with ldmkit", ""]
    lines += ["Every part, by kind. `ldmkit plugins` lists what is installed, parts of others among it.", ""]
    for kind, group in GROUPS.items():
        lines += [f"## [{plural(kind).capitalize()}]({kind}.md)", "", "| name | what it is |", "|---|---|"]
        for name, value in entries(group).items():
            lines.append(f"| [`{name}`]({kind}.md#{name}) | {_summary(_loaded(value))} |")
        lines.append("")
    lines += ["## Commands", "", "Entry points of the group `ldmkit.commands`; `ldmkit` lists them with its own.", ""]
    lines += [f"- `ldmkit {name}`" for name in entries(COMMANDS_GROUP)]
    lines += ["", "## Models", "", "Entry points of the group `ldmkit.models`.", ""]
    lines += [f"- `{name}`" for name in entries(MODELS_GROUP)]
    return "\n".join(lines) + "\n"


def _kind_page(kind: str) -> str:
    contract = contract_of(kind)
    lines = [MADE, "", f"# {plural(kind).capitalize()}", "", _text(described(contract).text), ""]
    lines += [f"Entry points of the group `{GROUPS[kind]}`. What is promised and checked: "]
    lines[-1] += f"[contracts](../contracts.md#{kind}). The class to implement is [at the end](#the-contract)."
    for name, value in entries(GROUPS[kind]).items():
        lines += ["", *_part(kind, name, value)]
    paths = [f"{contract.__module__}.{contract.__name__}"]
    paths += [f"ldmkit.contracts.{place}" for place in BESIDE.get(kind, ())]
    shown = [line for path in paths for line in (f"::: {path}", "")]
    return "\n".join([*lines, "", "## The contract", "", *shown])


def _part(kind: str, name: str, value: str) -> list[str]:
    cls = _loaded(value)
    lines = [f"## {name}", "", _text(described(cls).text), "", f"`{value}`"]
    config = getattr(cls, "Config", cls)
    lines += ["", *_fields(config)]
    if kind == "conditioner":
        shown = json.dumps(_schema(cls.Input), indent=2, ensure_ascii=False)
        lines += ["", "The JSON schema of its input:", "", "```json", shown, "```"]
    return lines


def _fields(config: Any) -> list[str]:
    """A table of a config's fields, and one of each value inside it."""
    schema = _schema(config)
    inner = {name: one for name, one in schema.get("$defs", {}).items() if one.get("properties")}
    if not schema.get("properties"):
        return ["It has no config."]
    lines = _table(schema, described(config).args)
    known = {one.__name__: one for one in _values(config)}
    for name, one in inner.items():
        args = described(known[name]).args if name in known else {}
        lines += ["", f"`{name}`:", "", *_table(one, args)]
    return lines


def _values(config: Any) -> list[type]:
    """The value classes that a config's fields are made of, at any depth."""
    found: list[type] = []
    waiting: list[Any] = [config]
    while waiting:
        one = waiting.pop()
        if inspect.isclass(one) and hasattr(one, "model_fields") and one not in found:
            found.append(one)
            waiting += [field.annotation for field in one.model_fields.values()]
        waiting += getattr(one, "__args__", ())
    return found


def _table(schema: dict[str, Any], args: dict[str, str]) -> list[str]:
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        default = "required" if name in schema.get("required", ()) else _default(field)
        lines.append(f"| `{name}` | {_cell(_type(field))} | {default} | {_cell(args.get(name, ''))} |")
    return lines


def _default(field: dict[str, Any]) -> str:
    if "default" not in field:
        return ""
    text = json.dumps(field["default"], ensure_ascii=False)
    return f"`{_cell(text)}`" if len(text) <= LONG else "(long)"


def _type(field: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    for key in ("anyOf", "oneOf", "allOf"):
        if key in field:
            return " or ".join(dict.fromkeys(map(_type, field[key])))
    if "$ref" in field:
        return f"`{field['$ref'].rpartition('/')[2]}`"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{json.dumps(one)}`" for one in field.get("enum", [field.get("const")]))
    kind = field.get("type", "anything")
    if kind == "array":
        return _array(field)
    if kind == "object":
        inner = field.get("additionalProperties")
        return f"mapping to {_type(inner)}" if isinstance(inner, dict) else "mapping"
    bounds = [f"{sign} {field[key]:.12g}" for key, sign in BOUNDS.items() if key in field]
    return " ".join([kind, ", ".join(bounds)]).strip()


def _array(field: dict[str, Any]) -> str:
    if "prefixItems" in field:
        return f"[{', '.join(map(_type, field['prefixItems']))}]"
    inner = field.get("items")
    return f"list of {_type(inner)}" if isinstance(inner, dict) and inner else "list"


def _schema(kind: Any) -> dict[str, Any]:
    return TypeAdapter(kind).json_schema(schema_generator=Lenient)


def _summary(cls: Any) -> str:
    return _cell(described(cls).text.partition("\n\n")[0])


def _text(text: str) -> str:
    """Outside code, `<` is no tag."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)


def _cell(text: str) -> str:
    return " ".join(_text(text).replace("|", "\\|").split())


def main() -> int:
    """Write the pages, or name those that are stale; returns the exit code."""
    made = pages()
    if "--write" in sys.argv:
        FOLDER.mkdir(exist_ok=True)
        for path, text in made.items():
            path.write_text(text, encoding="utf-8")
        return 0
    stale = [path for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} is stale: python .ci/reference_pages.py --write")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
