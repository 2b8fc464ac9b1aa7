"""Examination of one plugin, in an expendable process."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ldmkit.errors import LdmkitError, PluginError
from ldmkit.plugins.admission import Meddling
from ldmkit.plugins.catalogue import Status, load_entry, verdict
from ldmkit.plugins.doctor.faults import Found
from ldmkit.plugins.installed import Entry
from ldmkit.plugins.kinds import GROUPS


def look(entry: Entry, run: bool, slow: float) -> Iterator[dict[str, Any]]:
    """Import an entry, then try it out. Yields a message after each step; the last has `done` set."""
    began, own = time.perf_counter(), set(threading.enumerate())
    status, found = _imported(entry)
    seconds = round(time.perf_counter() - began, 3)
    if seconds > slow and status == "ok":
        remedy = "import large libraries inside the functions that use them"
        found.append(("slow-import", status, f"its import takes {seconds:.1f} s; the limit is {slow:g} s", remedy))
    found += _threads(own, "its import")
    message: dict[str, Any] = {"done": False, "status": status, "import_seconds": seconds, "checks": 0}
    if status == "ok" and run:
        yield {**message, "faults": found}
        own = set(threading.enumerate())
        passed, more = _tried(entry)
        more += _threads(own, "using it")
        message["checks"], found = passed, found + more
    yield {**message, "done": True, "faults": found}


def _threads(own: set[threading.Thread], what: str) -> list[Found]:
    """Faults for threads that were left running and that Python waits for at exit."""
    left = endless(own)
    until = time.monotonic() + GRACE
    for thread in left:
        thread.join(max(0.0, until - time.monotonic()))
    remedy = "start it with daemon=True, or end it when its work is done"
    names = ", ".join(sorted(thread.name for thread in left if thread.is_alive()))
    cause = f"{what} leaves a non-daemon thread running ({names}), which keeps every such program from exiting"
    return [("never-ends", "ok", cause, remedy)] if names else []


def endless(own: Iterable[threading.Thread] = ()) -> list[threading.Thread]:
    """Threads other than `own` that keep a program from exiting; threads of executors do not."""
    from concurrent.futures.thread import _threads_queues

    kept = {*own, threading.main_thread(), threading.current_thread(), *_threads_queues}
    return [thread for thread in threading.enumerate() if not thread.daemon and thread not in kept]


GRACE = 1.0
"""Seconds that a thread is given to end by itself."""


def _imported(entry: Entry) -> tuple[Status, list[Found]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Meddling)
        try:
            if entry.kind != "model":
                load_entry(entry)
        except PluginError as error:
            judged = verdict(entry)
            return judged.status, [(error.code.partition(".")[2], judged.status, error.what, judged.remedy)]
        except KeyboardInterrupt:
            cause = "its import raises KeyboardInterrupt, which is not caught and would end every program"
            return "failed", [("import-failed", "failed", cause, "")]
    remedy = "do not change global torch settings on import; they belong to the program"
    changes = [str(one.message) for one in caught if issubclass(one.category, Meddling)]
    return "ok", [("changes-defaults", "ok", text, remedy) for text in changes]


def _tried(entry: Entry) -> tuple[int, list[Found]]:
    """The number of checks that an entry passed, and its faults."""
    attempts: dict[str, Callable[[Entry], tuple[int, list[Found]]]] = {
        "hooks": _hooks, "model": _model, "command": _command, **dict.fromkeys(GROUPS, _kit),
    }  # fmt: skip
    try:
        return attempts[entry.kind](entry)
    except BaseException as error:  # a plugin must not end the examination of the next one
        return 0, [("check-failed", "ok", f"trying it raised {type(error).__name__}: {error}", "")]


def _kit(entry: Entry) -> tuple[int, list[Found]]:
    from ldmkit.testing import check
    from ldmkit.testing.discovery import suite

    try:
        suite(entry.kind)
    except PluginError:  # `no-suite`: nothing is known of the kind
        return 0, []
    outcomes = [(report, one) for report in check(entry) for one in report.outcomes]
    failed: list[Found] = []
    # an error that nobody expected says least, and often follows from what other checks found
    for report, one in sorted(outcomes, key=lambda pair: pair[1].expected == "no error"):
        if one.status == "failed":
            said = f"{one.check.kind}-{one.check.name}: {one.check.promise} Expected {one.expected}; got {one.came}"
            remedy = f"{one.check.docs} explains it; try again: ldmkit plugins check {entry.qualified}"
            failed.append(("check-failed", "ok", f"{report.subject}: {said}", remedy))
    return sum(one.status == "passed" for _, one in outcomes), failed


def _hooks(entry: Entry) -> tuple[int, list[Found]]:
    from ldmkit.plugins.doctor.rehearsal import rehearse

    return rehearse(entry)


def _model(entry: Entry) -> tuple[int, list[Found]]:
    """Check that a bundled model's folder exists and its parts fit; no weights are read."""
    from ldmkit.models.compose import compose
    from ldmkit.models.locate import model_folder
    from ldmkit.models.source import NativeFolder

    try:
        compose(NativeFolder(model_folder(entry)).spec)
    except LdmkitError as error:
        return 0, [("bad-model", "failed", str(error), error.fits or "")]
    return 1, []


def _command(entry: Entry) -> tuple[int, list[Found]]:
    """Check that Typer can build a command from it, i.e. at least one function with supported arguments."""
    import typer

    try:
        typer.main.get_command(load_entry(entry))
    except Exception as error:
        cause = f"Typer cannot build a command from it: {type(error).__name__}: {error}"
        return 0, [("not-a-command", "failed", cause, "a typer.Typer with @app.command() functions")]
    return 1, []
