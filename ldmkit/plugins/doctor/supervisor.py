"""Examination of plugins from a safe process: one subprocess per distribution, with time limits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from ldmkit.plugins.catalogue import catalogue, verdict
from ldmkit.plugins.doctor.faults import Fault, Seen, fault, faults_of_metadata
from ldmkit.plugins.installed import HOME, Entry

BOOT = """
import json, sys
job = json.load(sys.stdin)
sys.path[:] = job["path"]
from ldmkit.plugins.doctor.host import main
main(job)
"""


@dataclass(frozen=True)
class Limits:
    """Time limits in seconds.

    Args:
        slow: an import that takes longer is reported as a fault.
        hang: an import that takes longer is aborted.
        checks: the checks of one part are aborted if they take longer.
    """

    slow: float = 1.0
    hang: float = 30.0
    checks: float = 300.0


@dataclass(frozen=True)
class Diagnosis:
    """The results of the doctor.

    Args:
        faults: all faults, by distribution and part.
        seen: the examined entries.
        left_out: the entries that settings disable, with the reason.
    """

    faults: tuple[Fault, ...]
    seen: tuple[Seen, ...]
    left_out: tuple[tuple[Entry, str], ...]

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.faults


def diagnose(
    names: Sequence[str] = (),
    *,
    run: bool = True,
    in_tree: bool = False,
    limits: Limits = Limits(),
    progress: Callable[[Seen], None] | None = None,
) -> Diagnosis:
    """Examine the installed third-party plugins.

    Args:
        names: distributions to examine; () examines all.
        run: run the contract kit on the parts and call the hooks; otherwise they are only imported.
        in_tree: also examine ldmkit's own parts.
        progress: called after each examined entry.
    """
    entries = [e for e in catalogue() if (in_tree or e.dist != HOME) and (not names or e.dist in names)]
    judged = {entry: verdict(entry) for entry in entries}
    left_out = tuple((e, v.reason) for e, v in judged.items() if v.status == "disabled")
    todo = [e for e, v in judged.items() if v.status not in ("disabled", "incompatible")]
    seen: list[Seen] = []
    for one in examine(sorted(todo, key=lambda e: e.dist), run, limits):
        seen.append(one)
        if progress is not None:
            progress(one)
    faults = [*faults_of_metadata(names or None), *(found for one in seen for found in one.faults)]
    faults.sort(key=lambda one: (one.distribution, one.part))
    return Diagnosis(tuple(faults), tuple(seen), left_out)


def examine(entries: Sequence[Entry], run: bool, limits: Limits) -> Iterator[Seen]:
    """Examine entries in subprocesses, one per distribution."""
    if not entries:
        return
    groups = [[asdict(entry) for entry in group] for _, group in groupby(entries, lambda e: e.dist)]
    job = {"path": sys.path, "groups": groups, "run": run, "limits": asdict(limits)}
    quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    # torch and pydantic look for their own plugins in all metadata; metadata that are not UTF-8 would break their
    # import and be reported as a fault of every part
    quiet |= {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "PYDANTIC_DISABLE_PLUGINS": "__all__"}
    left = list(entries)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr:
        host = subprocess.Popen(
            [sys.executable, "-c", BOOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            encoding="utf-8", env={**os.environ, **quiet}, start_new_session=True,
        )  # fmt: skip
        try:
            assert host.stdin is not None and host.stdout is not None
            with host.stdin as pipe:
                json.dump(job, pipe)
            for line in host.stdout:
                one = _seen(json.loads(line))
                left.remove(one.entry)
                yield one
        finally:
            _end(host)
        stderr.seek(0)
        last = (stderr.read().splitlines() or ["nothing"])[-1]
    for entry in left:
        what = f"the process that examines plugins ended; its last output was: {last}"
        yield Seen(entry, "failed", None, faults=(fault(entry, "died", "failed", what),))


def _end(host: subprocess.Popen[str]) -> None:
    """Kill the process, including subprocesses that it or a plugin left running."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(host.pid, signal.SIGKILL) if hasattr(os, "killpg") else host.kill()
    host.wait()


def _seen(data: dict[str, Any]) -> Seen:
    entry = data.pop("entry")
    entry["requires"] = tuple(entry["requires"])
    faults = tuple(Fault(**found) for found in data.pop("faults"))
    return Seen(entry=Entry(**entry), faults=faults, **data)
