"""The command group: the core's commands, and those of plugins, which are imported only when run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ldmkit.cli import check, convert, extract, install, pictures, plugins, replay, sample
from ldmkit.cli.listing import set_environment
from ldmkit.cli.once import once
from ldmkit.cli.summaries import summary
from ldmkit.plugins.catalogue import Entry, by_name, load_entry
from ldmkit.plugins.local import VARIABLE
from ldmkit.version import VERSION


class LazyGroup(TyperGroup):
    """Lists plugin commands from metadata; imports a command only when it is run."""

    _listing = "ldmkit.listing"

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *sorted(_plugin_commands())]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        ctx.meta[self._listing] = True
        super().format_commands(ctx, formatter)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        entry = _plugin_commands().get(cmd_name)
        if own is not None or entry is None:
            return None if own is None else once(own)
        if ctx.meta.get(self._listing) or ctx.resilient_parsing:
            return TyperCommand(cmd_name, help=summary(entry))
        return once(typer.main.get_command(load_entry(entry)))


def _plugin_commands() -> dict[str, Entry]:
    own = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    return {e.qualified if name in own else name: e for name, e in by_name("command").items()}


app = typer.Typer(
    cls=LazyGroup,
    name="ldmkit",
    help="Latent diffusion composed of parts: codecs, denoisers, conditioners and samplers as plugins.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"ldmkit {VERSION}")
        raise typer.Exit


@app.callback()
def settings(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
    safe_mode: Annotated[bool, typer.Option("--safe-mode", help="Use only in-tree parts.")] = False,
    allow: Annotated[list[str] | None, typer.Option(help="Plugins to allow: a distribution or kind:name.")] = None,
    deny: Annotated[list[str] | None, typer.Option(help="Plugins to exclude.")] = None,
    parts: Annotated[
        Path | None, typer.Option(help="Python file to execute, whose parts are used; as LDMKIT_PARTS.")
    ] = None,
) -> None:
    """Latent diffusion composed of parts: codecs, denoisers, conditioners and samplers as plugins."""
    # `main` restores the environment after the command.
    set_environment(safe_mode, allow or [], deny or [])
    if parts is not None:
        os.environ[VARIABLE] = str(parts)


app.command("sample", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(sample.sample)
app.command("replay")(replay.replay_picture)
app.command("check")(check.check_spec)
app.command("import")(convert.import_model)
app.command("extract")(extract.extract)
app.command("encode")(pictures.encode)
app.command("decode")(pictures.decode)
app.command("install")(install.install)
app.command("uninstall")(install.uninstall)
app.add_typer(plugins.app, name="plugins")
