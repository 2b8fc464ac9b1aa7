"""`ldmkit plugins`: what is installed, from metadata alone."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ldmkit.cli.doctor import doctor
from ldmkit.cli.kit import check_parts
from ldmkit.cli.listing import print_listing, row, tried
from ldmkit.cli.options import Json
from ldmkit.errors import PluginError, suggest
from ldmkit.plugins.catalogue import Entry, catalogue, load_entry
from ldmkit.plugins.kinds import GROUPS

app = typer.Typer(help="List what is installed, or show one part.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def listing(
    ctx: typer.Context,
    kind: Annotated[str | None, typer.Option(help="Only parts of this kind.")] = None,
    load: Annotated[bool, typer.Option("--load", help="Import every part and report what fails.")] = False,
    by_distribution: Annotated[
        bool, typer.Option("--by-distribution", help="Group parts by distribution; say where it was installed from.")
    ] = False,
    json: Json = False,
) -> None:
    """List all installed parts without importing them."""
    if ctx.invoked_subcommand is not None:
        return
    print_listing(kind, load=load, json=json, grouped=by_distribution)


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name, kind:name or dist:name.")], json: Json = False) -> None:
    """Show one part: where it comes from, what it is, its config and input schemas."""
    from ldmkit.cli.answers import emit

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


app.command()(doctor)
app.command("check")(check_parts)


def _describe(entry: Entry) -> dict[str, Any]:
    found = row(entry, tried(entry))
    if found["status"] != "ok" or entry.kind not in GROUPS:
        return found
    cls = load_entry(entry)
    found["summary"] = (cls.__doc__ or "").strip().split("\n")[0]
    try:
        found["config"] = _schema(cls.Config if hasattr(cls, "Config") else cls)
        if entry.kind == "conditioner":
            found["input"] = _schema(cls.Input)
    except Exception as error:  # types of the plugin's own that have no schema
        found |= {"status": "failed", "reason": f"its schema cannot be made: {type(error).__name__}: {error}"}
    return found


def _schema(kind: Any) -> dict[str, Any]:
    """JSON schema of a type; fields that JSON cannot hold (functions, tensors) are named as such."""
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    class Lenient(GenerateJsonSchema):
        def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
            return {"type": "not JSON"}

    return TypeAdapter(kind).json_schema(schema_generator=Lenient)
