"""The bus: pluggy hooks for what is one-to-many. Plugins are the entry points of group `ldmkit`."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from ldmkit.errors import LdmkitError, PluginError, SourceError, shown
from ldmkit.models.composed import Composed
from ldmkit.plugins.catalogue import Entry, catalogue, load_entry, note_failure, on_refresh, verdict
from ldmkit.plugins.installed import HOME, normal

if TYPE_CHECKING:
    from ldmkit.contracts.step import Step
    from ldmkit.models.source import Source

hookspec = pluggy.HookspecMarker("ldmkit")
hookimpl = pluggy.HookimplMarker("ldmkit")


class Hooks:
    """What plugins may implement with `@ldmkit.hookimpl`."""

    @hookspec(firstresult=True)
    def ldmkit_identify_checkpoint(
        self, path: Path, config: Path | None, ema: bool | None, variant: str | None
    ) -> Source | None:
        """A reader for a file or folder of a format the plugin knows, or None.

        Args:
            path: existing file or folder.
            config: the original yaml beside a checkpoint, where the caller gave one.
            ema: True or False choose averaged or raw weights; None means averaged where present.
            variant: of the weights (`fp16`), where the caller names one. A reader that takes it says so by
                `Source.has_variants`; one that does not may leave the argument out.
        """

    @hookspec
    def ldmkit_pipeline_built(self, pipeline: Composed) -> None:
        """Called after a pipeline was composed."""

    @hookspec
    def ldmkit_step(self, pipeline: Composed, step: Step) -> None:
        """Called after every step of every run."""


@cache
def manager() -> pluggy.PluginManager:
    """The plugin manager with every usable hook plugin registered, loaded on first call.

    A plugin that cannot be imported is left out; `ldmkit plugins` shows why. One that raises later is reported by a
    warning and counted, and whoever called goes on.
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
            join(bus, entry, plugin)
        except Exception as error:  # wrong arguments, and whatever looking at a plugin's attributes may raise
            note_failure(entry, error)
    return bus


on_refresh(manager.cache_clear)


class _Guarded:
    """A plugin's hooks, guarded, as attributes. (Plugins must be hashable, which a SimpleNamespace is not.)"""


def join(bus: pluggy.PluginManager, entry: Entry, plugin: Any) -> None:
    """Register a hook plugin, guarded.

    Raises:
        ValueError, pluggy.PluginValidationError: hooks that ldmkit does not have, wrong arguments, wrappers; it is
            not registered then.
    """
    guarded = _Guarded()
    for name in dir(plugin):
        options = bus.parse_hookimpl_opts(plugin, name)
        if options is None:
            continue
        if options.get("wrapper") or options.get("hookwrapper"):
            raise ValueError(f"{name} is a wrapper; a plain @ldmkit.hookimpl is wanted")
        setattr(guarded, name, _guarded(entry, options.get("specname") or name, getattr(plugin, name)))
    try:
        bus.register(guarded, name=entry.qualified)
        bus.check_pending()
    except BaseException:
        if bus.has_plugin(entry.qualified):
            bus.unregister(name=entry.qualified)
        raise


def _guarded(entry: Entry, hook: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; what it raises is reported, and the caller gets None (`_RAISED` of `ldmkit_step`)."""

    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except _PASSED:
            raise
        except LdmkitError as error:
            if hook == "ldmkit_identify_checkpoint":
                raise  # a reader's answer: it knows the format, and the file is damaged
            _report(entry, hook, error)
        except Exception as error:
            if hook == "ldmkit_identify_checkpoint" and normal(entry.dist) == HOME:
                raise _own_crash(entry, error, arguments) from error
            _report(entry, hook, error)
        except BaseException as error:  # SystemExit among them: a listener must not end the run
            _report(entry, hook, error)
        return _RAISED if hook == "ldmkit_step" else None

    return call


def _own_crash(entry: Entry, error: Exception, arguments: tuple[Any, ...]) -> LdmkitError:
    """What to say when a reader that comes with ldmkit raises what it should not: it is nobody's plugin."""
    path = next((str(given) for given in arguments if isinstance(given, Path)), None)
    what = f"ldmkit's own reader {entry.name!r} stopped with {type(error).__name__}: {shown(str(error), 200)}"
    made = f"{HOME} {entry.version}"
    fits = f"a good copy, for the file is probably damaged; if it is not: a report of this line, {made}, and the file"
    return SourceError("reader-crashed", what, where=path, fits=fits)


_PASSED = (KeyboardInterrupt, GeneratorExit)
_RAISED = object()

_raised: Counter[tuple[str, str]] = Counter()
on_refresh(_raised.clear)


def _report(entry: Entry, hook: str, error: BaseException) -> None:
    _raised[entry.qualified, hook] += 1
    count = _raised[entry.qualified, hook]
    times = "once" if count == 1 else f"{count} times"
    what = f"{hook} raised {type(error).__name__} ({times}): {error}"
    note_failure(entry, PluginError("hook-raised", what))
    warnings.warn(f"hook {entry.name!r} of {entry.dist} {entry.version}: {what}; the run goes on", stacklevel=4)


def raised(entry: Entry) -> int:
    """How often hooks of an entry raised in this process."""
    return sum(count for (name, _), count in _raised.items() if name == entry.qualified)


def step_listener(pipeline: Composed) -> Callable[[Step], None] | None:
    """What to call after each step of one run; None where nobody listens.

    A hook that raises is left out for the rest of that run.
    """
    hooks = list(reversed(manager().hook.ldmkit_step.get_hookimpls()))
    if not hooks:
        return None

    def call(step: Step) -> None:
        given: dict[str, Any] = {"pipeline": pipeline, "step": step}
        for hook in tuple(hooks):
            if hook.function(*(given[name] for name in hook.argnames)) is _RAISED:
                hooks.remove(hook)

    return call
