"""How commands report: exit codes, JSON, and one-line errors."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

from ldmkit.errors import LdmkitError, PluginError, RunError
from ldmkit.printable import printable_json

USAGE, MODEL, PLUGIN, RUN, INTERRUPTED = 2, 3, 4, 5, 130
"""Exit codes other than 0; 2 is also that of invalid input. They are listed in docs/cli.md."""


def exit_code(error: LdmkitError) -> int:
    """The exit code for an error, by its family."""
    if isinstance(error, PluginError):
        return PLUGIN
    if isinstance(error, RunError):
        return RUN
    return USAGE if error.family == "input" else MODEL


def emit(data: Any) -> None:
    """Print JSON for programs on stdout."""
    # characters that another encoding lacks would be escaped by the stream, but not as JSON requires
    any_character = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    print(printable_json(json.dumps(data, ensure_ascii=not any_character, indent=2)))


def report(error: LdmkitError, as_json: bool) -> None:
    """Print an error: JSON on stdout, or a line on stderr, after the plugin's own traceback if a plugin failed."""
    if error.code == "run.plugin-failed" and error.__cause__ is not None:
        traceback.print_exception(error.__cause__)
    if as_json:
        emit({"error": {"code": error.code, "what": error.what, "where": error.where, "fits": error.fits}})
        return
    print(f"error {error}", file=sys.stderr)
