"""The memory available for a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


class Room(NamedTuple):
    """Available memory, and a description of what limits it.

    Args:
        bytes: total memory on the CPU, where the system frees caches as needed; free memory on a GPU.
    """

    bytes: int
    what: str


def room(device: torch.device) -> Room | None:
    """The memory of a device, or the limit of the process if that is lower; None if unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return Room(free + cached, f"free on {torch.cuda.get_device_name(device)}")
    return min(_rooms(), default=None)


def _rooms() -> Iterator[Room]:
    with suppress(AttributeError, ValueError, OSError):  # not POSIX, or without these names
        yield Room(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "the machine's memory")
    for limit in _cgroup_limits():
        yield Room(limit, "the memory limit of its control group")
    for name, what in (("RLIMIT_AS", "address space"), ("RLIMIT_DATA", "data segment")):
        if (soft := _rlimit(name)) is not None:
            yield Room(soft, f"the {what} limit set by `ulimit`")


def _cgroup_limits() -> Iterator[int]:
    """Limits of this process's control groups and their parents, cgroup versions 1 and 2."""
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if "memory" not in controllers.split(",") and number != "0":
            continue
        base, name = (_CGROUPS / "memory", "memory.limit_in_bytes") if controllers else (_CGROUPS, "memory.max")
        inside = Path(path.strip("/"))
        for group in (inside, *inside.parents):
            try:
                text = (base / group / name).read_text(encoding="utf-8").strip()
            except OSError:
                continue  # not mounted; in most containers their own group is mounted at the root
            if text.isdecimal():
                yield int(text)


def _rlimit(name: str) -> int | None:
    try:
        import resource
    except ImportError:  # not POSIX
        return None
    soft, _ = resource.getrlimit(getattr(resource, name))
    return None if soft == resource.RLIM_INFINITY or soft < 0 else soft
