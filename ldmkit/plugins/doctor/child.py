"""What is done to one plugin, in a process that it may ruin."""

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
    """Import an entry, then try it; a message after each of the two, the last of them marked as `done`."""
    began, own = time.perf_counter(), set(threading.enumerate())
    status, found = _imported(entry)
    seconds = round(time.perf_counter() - began, 3)
    if seconds > slow and status == "ok":
        remedy = "import large libraries inside the functions that use them"
        found.append(("slow-import", status, f"its import takes {seconds:.1f} s, more than {slow:g} s", remedy))
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
    """Threads that were started and that Python waits for at the end of a program."""
    left = endless(own)
    until = time.monotonic() + GRACE
    for thread in left:
        thread.join(max(0.0, until - time.monotonic()))
    remedy = "start it with daemon=True, or end it when its work is done"
    names = ", ".join(sorted(thread.name for thread in left if thread.is_alive()))
    cause = f"{what} leaves a thread running that is no daemon ({names}): no program that does it ever ends"
    return [("never-ends", "ok", cause, remedy)] if names else []


def endless(own: Iterable[threading.Thread] = ()) -> list[threading.Thread]:
    """Threads besides `own` that keep a program from ending; those of executors end with it."""
    from concurrent.futures.thread import _threads_queues

    kept = {*own, threading.main_thread(), threading.current_thread(), *_threads_queues}
    return [thread for thread in threading.enumerate() if not thread.daemon and thread not in kept]


GRACE = 1.0
"""Seconds in which a thread may end by itself."""


def _imported(entry: Entry) -> tuple[Status, list[Found]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", Meddling)
        try:
            if entry.kind != "model":
                load_entry(entry)
        except PluginError as error:
            judged = verdict(entry)
            return judged.status, [(error.code.partition(".")[2], judged.status, error.what, judged.remedy)]
        except KeyboardInterrupt:
            cause = "its import raises KeyboardInterrupt, which is left to pass: it would end every program"
            return "failed", [("import-failed", "failed", cause, "")]
    remedy = "settings of torch belong to the program: leave them alone while a module is imported"
    meddled = [str(one.message) for one in said if issubclass(one.category, Meddling)]
    return "ok", [("changes-defaults", "ok", text, remedy) for text in meddled]


def _tried(entry: Entry) -> tuple[int, list[Found]]:
    """How many checks an entry passed, and what it did not."""
    attempts: dict[str, Callable[[Entry], tuple[int, list[Found]]]] = {
        "hooks": _hooks, "model": _model, "command": _command, **dict.fromkeys(GROUPS, _kit),
    }  # fmt: skip
    try:
        return attempts[entry.kind](entry)
    except BaseException as error:  # nothing of a plugin's may end the examination of the next one
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
            said = f"{one.check.kind}-{one.check.name}: {one.check.promise} Expected {one.expected}; came {one.came}"
            remedy = f"{one.check.docs} explains it; try again: ldmkit plugins check {entry.qualified}"
            failed.append(("check-failed", "ok", f"{report.subject}: {said}", remedy))
    return sum(one.status == "passed" for _, one in outcomes), failed


def _hooks(entry: Entry) -> tuple[int, list[Found]]:
    from ldmkit.plugins.doctor.rehearsal import rehearse

    return rehearse(entry)


def _model(entry: Entry) -> tuple[int, list[Found]]:
    """A bundled model's folder is there, and its parts fit; no weight is read."""
    from ldmkit.models.compose import compose
    from ldmkit.models.locate import model_folder
    from ldmkit.models.source import NativeFolder

    try:
        compose(NativeFolder(model_folder(entry)).spec)
    except LdmkitError as error:
        return 0, [("bad-model", "failed", str(error), error.fits or "")]
    return 1, []


def _command(entry: Entry) -> tuple[int, list[Found]]:
    """Typer can make a command of it: it has at least one function, with arguments that Typer knows."""
    import typer

    try:
        typer.main.get_command(load_entry(entry))
    except Exception as error:
        cause = f"Typer makes no command of it: {type(error).__name__}: {error}"
        return 0, [("not-a-command", "failed", cause, "a typer.Typer with @app.command() functions")]
    return 1, []
