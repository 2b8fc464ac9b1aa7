"""`ldmkit new`: a distribution with one working part."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from ldmkit.cli.options import Json

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="conditioner, sampler, codec, denoiser, guidance, adapter ...")],
    name: Annotated[str, typer.Argument(help="Name of the part: lower-case words joined by hyphens.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder in which to create the new folder.")] = Path(),
    author: Annotated[str | None, typer.Option(help="'Name', or 'Name <mail@example.org>'.")] = None,
    signal: Annotated[
        str | None,
        typer.Option(help="Add training data and a recipe to a conditioner: vector, tokens, plane or residuals."),
    ] = None,
    json: Json = False,
) -> None:
    """Write a distribution ldmkit-NAME with a working part and passing tests."""
    from ldmkit import PluginError, suggest
    from ldmkit.cli.answers import emit
    from ldmkit.plugins.kinds import GROUPS
    from ldmkit_authoring.distribution import distribution, write

    if kind not in GROUPS:
        raise PluginError("unknown-kind", f"there is no kind {kind!r}", fits=suggest(kind, GROUPS))
    others = _namesakes(kind, name)
    names, texts = distribution(kind, name, author, taken=bool(others), signal=signal)
    if others:
        theirs = " and ".join(others)
        what = (
            f"a {kind} {name!r} is installed already, by {theirs}: with both, '{names.dist}:{name}' means the new one"
        )
        warnings.warn(what, stacklevel=1)
    folder = out / names.dist
    write(folder, texts)
    module = folder / "src" / names.package / f"{names.module}.py"
    if json:
        made = {"kind": kind, "name": name, "distribution": names.dist, "class": names.cls}
        emit({**made, "path": str(folder), "module": str(module), "files": sorted(texts)})
        return
    print("\n".join(f"{folder / path}" for path in sorted(texts)))
    print(f"\nthe part: {module}\nnext:     cd {folder} && pip install -e '.[test]' && pytest")
    if signal is not None:
        print("then:     ldmkit train recipe.yaml")


def _namesakes(kind: str, name: str) -> list[str]:
    """Distributions, with versions, that have a part of that name."""
    from ldmkit.plugins.catalogue import catalogue

    return [f"{entry.dist} {entry.version}" for entry in catalogue() if entry.kind == kind and entry.name == name]
