"""Where a model is: a path, a bundled name, or a repository on the hub. Imports neither torch nor a reader."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from ldmkit.contracts.arguments import path_of
from ldmkit.errors import SourceError, suggest
from ldmkit.models.hub import fetch
from ldmkit.plugins.catalogue import HOME, by_name, load_entry
from ldmkit.plugins.installed import Entry


def locate(source: str | Path, variant: str | None = None) -> tuple[Path, str]:
    """(existing path, what to call it) of a path, a bundled name or `hf:org/name[@revision]`.

    Args:
        variant: of the weights that are fetched from the hub.
    """
    text = str(source)
    if "\0" in text or not text:
        raise SourceError("not-found", f"{text!r} is no path", where="source")
    if text.startswith("hf:"):
        return fetch(text.removeprefix("hf:"), variant), text
    try:
        path = Path(text).expanduser()
        if path.exists():
            return path, str(path.absolute())
    except (OSError, RuntimeError) as error:
        raise SourceError("not-found", f"not a usable path: {error}", where=text[:200]) from None
    bundled = bundled_models()
    if text in bundled:
        return model_folder(bundled[text]), text
    fits = f"bundled models: {', '.join(sorted(bundled)) or 'none'}; " + (suggest(text, bundled) if bundled else "")
    raise SourceError("not-found", f"there is no file, folder or bundled model {text!r}", fits=fits.rstrip("; "))


def check_config(config: str | Path | None) -> Path | None:
    """The original yaml of a checkpoint, where one is named.

    Raises:
        SourceError: `not-found`.
    """
    yaml = None if config is None else path_of(config, "config")
    if yaml is not None and not yaml.is_file():
        raise SourceError("not-found", "there is no such config file", where=str(yaml))
    return yaml


def default_model() -> str:
    """Name of the model that comes with ldmkit itself.

    Raises:
        SourceError: `no-bundled`: there is none, or several.
    """
    own = [name for name, entry in bundled_models().items() if entry.dist == HOME]
    if len(own) != 1:
        fits = ", ".join(sorted(bundled_models())) or "a folder, a checkpoint, hf:org/name"
        raise SourceError("no-bundled", f"no model is named, and ldmkit comes with {len(own)}", fits=fits)
    return own[0]


def bundled_models() -> dict[str, Entry]:
    """Name -> entry of every model that an installed distribution brings along."""
    return by_name("model")


def model_folder(entry: Entry) -> Path:
    """Where the files of a bundled model are; its package is imported to find out."""
    package, _, folder = entry.value.partition(":")
    load_entry(replace(entry, value=package))
    return Path(str(files(package))) / folder
