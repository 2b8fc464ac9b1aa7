"""How a command answers: its exit code, its JSON, its one line of an error."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

from ldmkit.errors import LdmkitError, PluginError, RunError
from ldmkit.printable import printable_json

USAGE, MODEL, PLUGIN, RUN, INTERRUPTED = 2, 3, 4, 5, 130
"""Exit codes besides 0; 2 is also what a wrong input gives. They are listed in docs/cli.md."""


def exit_code(error: LdmkitError) -> int:
    """The exit code for an error, by its family."""
    if isinstance(error, PluginError):
        return PLUGIN
    if isinstance(error, RunError):
        return RUN
    return USAGE if error.family == "input" else MODEL


def emit(data: Any) -> None:
    """Print JSON for programs on stdout."""
    # what a stream of another encoding cannot say would be escaped by it, and not as JSON does
    any_character = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    print(printable_json(json.dumps(data, ensure_ascii=not any_character, indent=2)))


def report(error: LdmkitError, as_json: bool) -> None:
    """Print an error: JSON on stdout, or a line on stderr; before it a plugin's own traceback, for the author."""
    if error.code == "run.plugin-failed" and error.__cause__ is not None:
        traceback.print_exception(error.__cause__)
    if as_json:
        emit({"error": {"code": error.code, "what": error.what, "where": error.where, "fits": error.fits}})
        return
    print(f"error {error}", file=sys.stderr)
