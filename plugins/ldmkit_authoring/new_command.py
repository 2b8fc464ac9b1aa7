"""`ldmkit new`: a distribution with one part that works as it stands."""

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
    name: Annotated[str, typer.Argument(help="Of the part: lower-case words joined by hyphens.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder in which the new folder is made.")] = Path(),
    author: Annotated[str | None, typer.Option(help="'Name', or 'Name <mail@example.org>'.")] = None,
    signal: Annotated[
        str | None,
        typer.Option(help="Of a conditioner, with training data and a recipe: vector, tokens, plane or residuals."),
    ] = None,
    json: Json = False,
) -> None:
    """Write a distribution with a part of your own: ldmkit-NAME, with tests that are green at once."""
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
    """Distributions, with their versions, that have a part of that name."""
    from ldmkit.plugins.catalogue import catalogue

    return [f"{entry.dist} {entry.version}" for entry in catalogue() if entry.kind == kind and entry.name == name]
