"""The host process between the doctor and the plugins. It imports ldmkit and torch once and starts one child process
per distribution, which inherits the imports if the system can fork."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from ldmkit.errors import PluginError
from ldmkit.plugins.catalogue import catalogue, last_resort
from ldmkit.plugins.doctor.faults import Seen, fault
from ldmkit.plugins.installed import Entry


def main(job: dict[str, Any]) -> None:
    """Examine the groups of a job; writes one JSON line to stdout for each entry."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the output of plugins must not be mixed with the results
    _warm_up(job)
    for group in job["groups"]:
        entries = [Entry(**{**data, "requires": tuple(data["requires"])}) for data in group]
        for seen in _watch(entries, job):
            out.write(json.dumps(asdict(seen)) + "\n")
            out.flush()


def _warm_up(job: dict[str, Any]) -> None:
    """Import what all children need, so that the time is spent once and not attributed to a plugin."""
    catalogue()
    kinds = {data["kind"] for group in job["groups"] for data in group}
    common = ["ldmkit.pipeline", "ldmkit.plugins.doctor.child", *(["typer"] if "command" in kinds else [])]
    for name in common:
        import_module(name)
    if job["run"]:
        from ldmkit.testing.discovery import suite

        for kind in kinds:
            with suppress(PluginError):  # hooks and other kinds that the kit has no suite for
                suite(kind)


def _watch(todo: list[Entry], job: dict[str, Any]) -> Iterator[Seen]:
    """Examine the entries of one distribution; if one kills or blocks the child, a new child continues."""
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    while todo:
        receive, send = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(todo, job, send))
        child.start()
        send.close()
        alive = True
        while todo and alive:
            seen, alive = _answer(todo[0], receive, child, job["limits"])
            todo = todo[1:]
            yield seen
        receive.close()
        child.join(5 if alive else 0)
        child.kill()
        child.join()


def _answer(entry: Entry, receive: Connection, child: Any, limits: dict[str, float]) -> tuple[Seen, bool]:
    """A child's result for an entry, and whether the child can continue."""
    seconds: float | None = None
    for stage, limit in (("import", limits["hang"]), ("checks", limits["checks"])):
        try:
            if not receive.poll(limit):
                remedy = "find out what it waits for; until then " + last_resort(entry)
                found = fault(entry, "hangs", "failed", f"its {stage} took more than {limit:g} s", remedy)
                return Seen(entry, "failed", seconds, faults=(found,)), False
            message = json.loads(receive.recv_bytes())
        except (EOFError, OSError):
            child.join(5)
            cause = f"its {stage} ended the whole process ({_exit(child.exitcode)})"
            found = fault(entry, "died", "failed", cause, last_resort(entry))
            return Seen(entry, "failed", seconds, faults=(found,)), False
        seconds = message["import_seconds"]
        if message["done"]:
            break
    faults = tuple(fault(entry, *one) for one in message["faults"])
    return Seen(entry, message["status"], seconds, message["checks"], faults), True


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _child(todo: list[Entry], job: dict[str, Any], send: Connection) -> None:
    from ldmkit.plugins.doctor.child import endless, look

    sys.path[:] = job["path"]
    tried: set[tuple[str, str]] = set()
    for entry in todo:
        what = (entry.kind, entry.value)  # a class registered under several names is tried once
        for message in look(entry, job["run"] and what not in tried, job["limits"]["slow"]):
            send.send_bytes(json.dumps(message).encode())
        tried.add(what)
    if endless():  # all results have been sent, so do not wait for these threads
        os._exit(0)
