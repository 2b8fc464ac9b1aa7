"""Coordination of a run's processes beyond gradients: an error in one of them ends all of them at
the same place, so that the steps before it can be saved. It goes over the host: no device is waited for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch

from ldmkit import RunError

WAITED = timedelta(days=7)
"""How long one may be busy (encoding latents, drawing previews) while the others wait; a process that dies is noticed
at once."""


class Stopped(Exception):
    """A signal came before the first step."""


class Together:
    """The processes of a run; alone, it costs nothing.

    Args:
        accelerator: of this process; all of them make one at the same place.

    Attributes:
        failed: whether an error has ended them all.
    """

    def __init__(self, accelerator: Any) -> None:
        self.rank, self.count = int(accelerator.process_index), int(accelerator.num_processes)
        self.failed = False
        self._group = torch.distributed.new_group(backend="gloo", timeout=WAITED) if self.count > 1 else None

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Every process comes to the end of the block before any goes on; an error in one is one in all.

        Raises:
            RunError: `other-process`: the error is another one's, and is named.
            Stopped: another one was.
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
