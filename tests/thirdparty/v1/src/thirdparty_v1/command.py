"""`ldmkit v1-count`: how many parts of a kind there are."""

from __future__ import annotations

from typing import Annotated

import typer

import ldmkit

app = typer.Typer()


@app.command()
def count(kind: Annotated[str, typer.Argument(help="A kind of part.")] = "sampler") -> None:
    """Count the parts of a kind."""
    print(f"{len(ldmkit.components(kind))} of kind {kind}")
