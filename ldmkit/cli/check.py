"""`ldmkit check`: compose a spec without weights, say what a file is, or check a plugin before it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ldmkit.cli.options import Json
from ldmkit.cli.project import check_project
from ldmkit.printable import printable


def check_spec(
    spec: Annotated[
        Path, typer.Argument(help="pipeline.json or its folder, a LoRA's file, or a plugin's pyproject.toml.")
    ],
    json: Json = False,
) -> int:
    """Compose the parts of a spec without reading weights; report what fills which slot, and changed versions.

    For a LoRA's file or folder, report what it changes, the model it was made for, and its trigger phrases.

    For a plugin's pyproject.toml, check entry points, source tree and requirements, and run the contract kit on its
    parts without installing it.
    """
    if spec.suffix == ".toml":
        return check_project(spec, json)
    if spec.suffix != ".json" and spec.exists() and not _is_model(spec):
        return _describe(spec, json)
    return _check_pipeline(spec, json)


def _is_model(path: Path) -> bool:
    from ldmkit.models.spec import SPEC_FILE

    return (path / SPEC_FILE).is_file()


def _describe(path: Path, json: bool) -> int:
    from ldmkit.cli.answers import emit
    from ldmkit.errors import SourceError
    from ldmkit.plugins.hooks import manager

    facts = manager().hook.ldmkit_describe_file(path=path)
    if facts is None:
        fits = "a saved pipeline, or a LoRA's file"
        raise SourceError("unrecognised", "nobody says what it is", where=str(path), fits=fits)
    if json:
        emit(dict(facts))
        return 0
    print(printable(str(path)))
    for name, text in facts.items():
        print(printable(f"  {name}: {text}"))
    return 0


def _check_pipeline(spec: Path, json: bool) -> int:
    from ldmkit.cli.answers import emit
    from ldmkit.files.json import read_json
    from ldmkit.models.compose import compose
    from ldmkit.models.found import find_parts
    from ldmkit.models.spec import SPEC_FILE, PipelineSpec
    from ldmkit.models.versions import differences

    path = spec / SPEC_FILE if spec.is_dir() else spec
    read = PipelineSpec.read(read_json(path), str(path))
    found = find_parts(read)
    parts = compose(read, found)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items().items()}
    slots: dict[str, Any] = {
        name: {"kind": slot.kind, "dim": slot.dim, "filled_by": [c for c, s in parts.routes.items() if s == name]}
        for name, slot in parts.slots.items()
    }
    changed = differences(found, read.defaults)
    if json:
        emit({"spec": read.hash, "parameters": counts, "slots": slots, "differences": changed})
        return 0
    print(f"spec {read.hash} composes")
    for name, count in counts.items():
        print(printable(f"  {name}: {type(parts.items()[name]).__name__}, {count:,} parameters"))
    for name, info in slots.items():
        by = ", ".join(info["filled_by"]) or "nothing"
        print(printable(f"  slot {name} ({info['kind']}, dim {info['dim']}): filled by {by}"))
    for line in changed:
        print(printable(f"  {line}"))
    return 0
