"""The bus: pluggy hooks for what is one-to-many. Plugins are the entry points of group `ldmkit`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from ldmkit.errors import PluginError
from ldmkit.plugins import catalogue, load_entry, note_failure, on_refresh, verdict

if TYPE_CHECKING:
    from ldmkit.contracts import Step
    from ldmkit.pipeline import Pipeline
    from ldmkit.source import Source

hookspec = pluggy.HookspecMarker("ldmkit")
hookimpl = pluggy.HookimplMarker("ldmkit")


class Hooks:
    """What plugins may implement with `@ldmkit.hookimpl`."""

    @hookspec(firstresult=True)
    def ldmkit_identify_checkpoint(self, path: Path, config: Path | None, ema: bool | None) -> Source | None:
        """A reader for a file or folder of a format the plugin knows, or None.

        Args:
            path: existing file or folder.
            config: the original yaml beside a checkpoint, where the caller gave one.
            ema: True or False choose averaged or raw weights; None means averaged where present.
        """

    @hookspec
    def ldmkit_pipeline_built(self, pipeline: Pipeline) -> None:
        """Called after a pipeline was composed."""

    @hookspec
    def ldmkit_step(self, pipeline: Pipeline, step: Step) -> None:
        """Called after every step of every run."""


@cache
def manager() -> pluggy.PluginManager:
    """The plugin manager with every usable hook plugin registered, loaded on first call.

    A plugin that cannot be imported is left out; `ldmkit plugins` shows why.
    """
    bus = pluggy.PluginManager("ldmkit")
    bus.add_hookspecs(Hooks)
    for entry in catalogue():
        if entry.kind != "hooks" or verdict(entry).status in ("disabled", "incompatible"):
            continue
        try:
            plugin: Any = load_entry(entry)
        except PluginError:
            continue  # load_entry remembers it, `ldmkit plugins` lists it as failed; the other plugins go on
        try:
            bus.register(plugin, name=entry.qualified)
            bus.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            if bus.has_plugin(entry.qualified):
                bus.unregister(name=entry.qualified)
            note_failure(entry, error)
    return bus


on_refresh(manager.cache_clear)


def has_step_hooks() -> bool:
    """Whether anyone listens to steps: the loop asks once a run."""
    return bool(manager().hook.ldmkit_step.get_hookimpls())
