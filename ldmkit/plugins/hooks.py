"""Hooks (pluggy), for events that any number of plugins may handle. Plugins are entry points of group `ldmkit`."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
    from ldmkit.models.source import Learnt, Source

hookspec = pluggy.HookspecMarker("ldmkit")
hookimpl = pluggy.HookimplMarker("ldmkit")


class Hooks:
    """The hooks that plugins may implement with `@ldmkit.hookimpl`."""

    @hookspec(firstresult=True)
    def ldmkit_identify_checkpoint(
        self, path: Path, config: Path | None, ema: bool | None, variant: str | None
    ) -> Source | None:
        """A reader for a file or folder in a format that the plugin knows, or None.

        Args:
            path: existing file or folder.
            config: the original yaml config of a checkpoint, if the caller gave one.
            ema: True or False selects averaged or raw weights; None selects averaged weights if present.
            variant: weight variant (`fp16`), if the caller requested one. A reader that supports it sets
                `Source.has_variants`; other readers may omit the argument.
        """

    @hookspec(firstresult=True)
    def ldmkit_identify_update(self, path: Path, pipeline: Composed) -> Source | None:
        """A reader for a file or folder of changes to weights (LoRA and its like), or None.

        Its source has one adapter, whose config names ports of the pipeline's parts.

        Args:
            path: existing file or folder.
            pipeline: that it is for, whose layers the file names in some layout.
        """

    @hookspec(firstresult=True)
    def ldmkit_identify_adapter(self, path: Path, pipeline: Composed, options: Mapping[str, Any]) -> Source | None:
        """A reader for the file or folder of an adapter that depends on the pipeline it is for, or None.

        Adapters that do not are read by `ldmkit_identify_checkpoint`. The source has one adapter, and says by
        `conditioners_of` what fills its slots.

        Args:
            path: existing file or folder.
            pipeline: that it is for.
            options: those of `Pipeline.with_adapter_file`. A reader that uses one as the name of a further file puts
                it into `Source.files`; the others are fields of the adapter's config.
        """

    @hookspec(firstresult=True)
    def ldmkit_identify_embedding(self, path: Path) -> Sequence[Learnt] | None:
        """The learnt vectors (textual inversion) in a file or folder, one `Learnt` for each token and text encoder, or
        None. Shapes and numbers are checked by the caller.

        Args:
            path: existing file or folder.
        """

    @hookspec(firstresult=True)
    def ldmkit_describe_file(self, path: Path) -> Mapping[str, str] | None:
        """What a file or folder that is not a model says of itself, as lines of name and text; None: unknown.

        `ldmkit check FILE` prints it.

        Args:
            path: existing file or folder.
        """

    @hookspec
    def ldmkit_pipeline_built(self, pipeline: Composed) -> None:
        """Called after a pipeline has been composed."""

    @hookspec
    def ldmkit_step(self, pipeline: Composed, step: Step) -> None:
        """Called after every step of every run."""


@cache
def manager() -> pluggy.PluginManager:
    """The plugin manager with all usable hook plugins registered; they are loaded on the first call.

    Plugins that cannot be imported are skipped; `ldmkit plugins` shows why. An exception raised by a hook is counted
    and reported as a warning, and the caller continues.
    """
    bus = pluggy.PluginManager("ldmkit")
    bus.add_hookspecs(Hooks)
    for entry in catalogue():
        if entry.kind != "hooks" or verdict(entry).status in ("disabled", "incompatible"):
            continue
        try:
            plugin: Any = load_entry(entry)
        except PluginError:
            continue  # recorded by load_entry; `ldmkit plugins` lists it as failed
        try:
            join(bus, entry, plugin)
        except Exception as error:  # wrong arguments, or an exception from accessing the plugin's attributes
            note_failure(entry, error)
    return bus


on_refresh(manager.cache_clear)


class _Guarded:
    """A plugin's guarded hooks as attributes. (pluggy needs hashable plugins, which a SimpleNamespace is not.)"""


def join(bus: pluggy.PluginManager, entry: Entry, plugin: Any) -> None:
    """Register a hook plugin with guarded hooks.

    Raises:
        ValueError, pluggy.PluginValidationError: unknown hooks, wrong arguments or wrappers; the plugin is then not
            registered.
    """
    guarded = _Guarded()
    for name in dir(plugin):
        options = bus.parse_hookimpl_opts(plugin, name)
        if options is None:
            continue
        if options.get("wrapper") or options.get("hookwrapper"):
            raise ValueError(f"{name} is a wrapper; use a plain @ldmkit.hookimpl")
        setattr(guarded, name, _guarded(entry, options.get("specname") or name, getattr(plugin, name)))
    try:
        bus.register(guarded, name=entry.qualified)
        bus.check_pending()
    except BaseException:
        if bus.has_plugin(entry.qualified):
            bus.unregister(name=entry.qualified)
        raise


def _guarded(entry: Entry, hook: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with exceptions reported as warnings, in which case it returns None (`_RAISED` for
    `ldmkit_step`)."""

    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except _PASSED:
            raise
        except LdmkitError as error:
            if hook in _READERS:
                raise  # the reader knows the format and reports that the file is damaged
            _report(entry, hook, error)
        except Exception as error:
            if hook in _READERS and normal(entry.dist) == HOME:
                raise _own_crash(entry, error, arguments) from error
            _report(entry, hook, error)
        except BaseException as error:  # including SystemExit: a listener must not end the run
            _report(entry, hook, error)
        return _RAISED if hook == "ldmkit_step" else None

    return call


def _own_crash(entry: Entry, error: Exception, arguments: tuple[Any, ...]) -> LdmkitError:
    """The error for an unexpected exception in one of ldmkit's own readers."""
    path = next((str(given) for given in arguments if isinstance(given, Path)), None)
    what = f"ldmkit's reader {entry.name!r} raised {type(error).__name__}: {shown(str(error), 200)}"
    version = f"{HOME} {entry.version}"
    fits = f"an undamaged copy; if the file is intact, please report this line and {version} with the file"
    return SourceError("reader-crashed", what, where=path, fits=fits)


_PASSED = (KeyboardInterrupt, GeneratorExit)
_READERS = (
    *(f"ldmkit_identify_{kind}" for kind in ("checkpoint", "update", "adapter", "embedding")),
    "ldmkit_describe_file",
)
_RAISED = object()

_raised: Counter[tuple[str, str]] = Counter()
on_refresh(_raised.clear)


def _report(entry: Entry, hook: str, error: BaseException) -> None:
    _raised[entry.qualified, hook] += 1
    count = _raised[entry.qualified, hook]
    times = "once" if count == 1 else f"{count} times"
    what = f"{hook} raised {type(error).__name__} ({times}): {error}"
    note_failure(entry, PluginError("hook-raised", what))
    warnings.warn(f"hook {entry.name!r} of {entry.dist} {entry.version}: {what}; the run continues", stacklevel=4)


def raised(entry: Entry) -> int:
    """Number of exceptions that hooks of an entry have raised in this process."""
    return sum(count for (name, _), count in _raised.items() if name == entry.qualified)


def step_listener(pipeline: Composed) -> Callable[[Step], None] | None:
    """A function to call after each step of a run; None if no plugin implements the hook.

    A hook that raises is not called again in that run.
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
