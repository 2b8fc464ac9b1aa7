"""`ldmkit plugins`: what is installed, from metadata alone."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ldmkit.cli.options import Json
from ldmkit.errors import PluginError, suggest
from ldmkit.kinds import GROUPS
from ldmkit.plugins import Entry, Verdict, catalogue, load_entry, verdict

app = typer.Typer(help="List what is installed, or show one part.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def listing(
    ctx: typer.Context,
    kind: Annotated[str | None, typer.Option(help="Only parts of this kind.")] = None,
    load: Annotated[bool, typer.Option("--load", help="Import every part and report what fails.")] = False,
    json: Json = False,
) -> None:
    """List every part that is installed; nothing of it is imported."""
    if ctx.invoked_subcommand is not None:
        return
    from ldmkit.cli import emit

    entries = [entry for entry in catalogue() if kind is None or entry.kind == kind]
    known = {*GROUPS, *(entry.kind for entry in catalogue())}
    if kind is not None and kind not in known:
        raise PluginError("unknown-kind", f"there is no kind {kind!r}", fits=suggest(kind, known))
    rows = [(entry, _tried(entry) if load else verdict(entry)) for entry in entries]
    if json:
        emit([_row(entry, judged) for entry, judged in rows])
        return
    width = max((len(entry.name) for entry, _ in rows), default=0)
    for entry, judged in rows:
        reason = f"  {judged.reason}" if judged.reason else ""
        print(f"{entry.kind:<12}{entry.name:<{width + 2}}{judged.status:<13}{entry.dist} {entry.version}{reason}")


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name, kind:name or dist:name.")], json: Json = False) -> None:
    """Show one part: where it comes from, what it is, its config and input schemas."""
    from ldmkit.cli import emit

    entries = [e for e in catalogue() if name in (e.name, f"{e.kind}:{e.name}", e.qualified)]
    if not entries:
        raise PluginError("unknown", f"no part is called {name!r}", fits=suggest(name, {e.name for e in catalogue()}))
    described = [_describe(entry) for entry in entries]
    if json:
        emit(described)
        return
    for part in described:
        print(f"{part['kind']} {part['name']} ({part['status']}) from {part['distribution']} {part['version']}")
        print(f"  {part['value']}\n  {part.get('summary') or part['reason']}")
        for key, info in part.get("config", {}).get("properties", {}).items():
            default = f" = {info['default']!r}" if "default" in info else ""
            print(f"    {key}: {info.get('type', 'see --json')}{default}")


def _tried(entry: Entry) -> Verdict:
    try:
        load_entry(entry)
    except PluginError as error:
        judged = verdict(entry)
        return judged if judged.status != "ok" else Verdict("failed", error.what)
    return verdict(entry)


def _row(entry: Entry, judged: Verdict) -> dict[str, Any]:
    where = {"distribution": entry.dist, "version": entry.version, "value": entry.value}
    return {"kind": entry.kind, "name": entry.name, **where, "status": judged.status, "reason": judged.reason}


def _describe(entry: Entry) -> dict[str, Any]:
    row = _row(entry, _tried(entry))
    if row["status"] != "ok" or entry.kind not in GROUPS:
        return row
    cls = load_entry(entry)
    row["summary"] = (cls.__doc__ or "").strip().split("\n")[0]
    row["config"] = _schema(cls.Config if hasattr(cls, "Config") else cls)
    if entry.kind == "conditioner":
        row["input"] = _schema(cls.Input)
    return row


def _schema(kind: Any) -> dict[str, Any]:
    """JSON schema of a type; fields that JSON cannot hold (functions, tensors) are named as such."""
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    class Lenient(GenerateJsonSchema):
        def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
            return {"type": "not JSON"}

    return TypeAdapter(kind).json_schema(schema_generator=Lenient)
