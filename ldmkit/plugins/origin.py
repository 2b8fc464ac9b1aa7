"""Where a distribution was installed from, by its metadata."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ldmkit.plugins.local import place_of


def origin(dist: str) -> str:
    """`editable: FOLDER`, the file or address that was given to the installer, or `index: FOLDER` it lies in.

    `file: PATH` for a parts file; "" if its metadata cannot be read.
    """
    if (file := place_of(dist)) is not None:
        return f"file: {file}"
    try:
        found = metadata.distribution(dist)
        said = found.read_text("direct_url.json")
        folder = str(Path(str(found.locate_file(""))).resolve())
    except Exception:  # a damaged distribution must not end a listing
        return ""
    try:
        told = json.loads(said) if said else {}
        url, editable = told.get("url", ""), bool(told.get("dir_info", {}).get("editable"))
    except (ValueError, AttributeError):
        return folder
    if not url:
        return f"index: {folder}"
    path = unquote(urlsplit(url).path) if url.startswith("file:") else url
    return f"editable: {path}" if editable else path
