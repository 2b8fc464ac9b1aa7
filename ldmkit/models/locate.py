"""Locating of models: a path, a bundled name, or a hub repository. Imports neither torch nor any reader."""

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
    """(existing path, display name) for a path, a bundled name or `hf:org/name[@revision]`.

    Args:
        variant: variant of the weights to download from the hub.
    """
    text = str(source)
    if "\0" in text or not text:
        raise SourceError("not-found", f"{text!r} is not a path", where="source")
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
    raise SourceError("not-found", f"no file, folder or bundled model {text!r}", fits=fits.rstrip("; "))


def check_config(config: str | Path | None) -> Path | None:
    """The path of the original yaml config, if given.

    Raises:
        SourceError: `not-found`.
    """
    yaml = None if config is None else path_of(config, "config")
    if yaml is not None and not yaml.is_file():
        raise SourceError("not-found", "no such config file", where=str(yaml))
    return yaml


def default_model() -> str:
    """Name of the model bundled with ldmkit itself.

    Raises:
        SourceError: `no-bundled`: there is none, or more than one.
    """
    own = [name for name, entry in bundled_models().items() if entry.dist == HOME]
    if len(own) != 1:
        fits = ", ".join(sorted(bundled_models())) or "a folder, a checkpoint, hf:org/name"
        raise SourceError("no-bundled", f"no model was given, and ldmkit bundles {len(own)}", fits=fits)
    return own[0]


def bundled_models() -> dict[str, Entry]:
    """Name -> entry, for every model bundled with an installed distribution."""
    return by_name("model")


def model_folder(entry: Entry) -> Path:
    """The folder of a bundled model; imports its package."""
    package, _, folder = entry.value.partition(":")
    load_entry(replace(entry, value=package))
    return Path(str(files(package))) / folder
