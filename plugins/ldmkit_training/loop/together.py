"""Coordination of a run's processes beyond gradients: an error in one ends all of them at the same point, so that the
completed steps can be saved. Communication runs on the host and does not wait for devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch

from ldmkit import RunError

WAITED = timedelta(days=7)
"""How long a process may be busy (encoding latents, drawing previews) while the others wait; a process that dies is
detected at once."""


class Stopped(Exception):
    """A signal arrived before the first step."""


class Together:
    """The processes of a run; a single process has no overhead.

    Args:
        accelerator: accelerate's object of this process; all processes create theirs at the same point.

    Attributes:
        failed: whether an error has ended all processes.
    """

    def __init__(self, accelerator: Any) -> None:
        self.rank, self.count = int(accelerator.process_index), int(accelerator.num_processes)
        self.failed = False
        self._group = torch.distributed.new_group(backend="gloo", timeout=WAITED) if self.count > 1 else None

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """A barrier at the end of the block; an error in one process is raised in all.

        Raises:
            RunError: `other-process`: the error, which is named, occurred in another process.
            Stopped: another process was stopped.
        """
        if self._group is None:
            yield
            return
        error: Exception | None = None
        try:
            yield
        except Exception as met:
            error = met
        bad = torch.tensor(int(error is not None))
        torch.distributed.all_reduce(bad, torch.distributed.ReduceOp.MAX, group=self._group)
        if not bad:
            return
        self.failed = True
        told: list[str | None] = [None] * self.count
        own = None if error is None else "" if isinstance(error, Stopped) else str(error)
        torch.distributed.all_gather_object(told, own, group=self._group)
        if error is not None:
            raise error
        first = next(rank for rank, text in enumerate(told) if text is not None)
        if not told[first]:
            raise Stopped
        what = f"process {first} of {self.count} met an error: {told[first]}"
        raise RunError("other-process", what, fits="what that error asks for")
